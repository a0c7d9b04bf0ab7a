"""Programs that are compiled for other machines."""

import os
import pathlib
import subprocess
import sys

import pytest

from ualm_jax.aot.topology import _installed

ROOT = pathlib.Path(__file__).parents[2]
needs_plugin = pytest.mark.skipif(
    not _installed("jax_plugins", "jax_plugins.xla_cuda13"), reason="JAX's GPU plugin is not installed"
)


def execute(program: str) -> subprocess.CompletedProcess:
    """In a process of its own, since compilers for other machines change it; it finds the plugins of this one."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=ROOT)
