"""GPU settings: the table, and that no flag can end a run."""

import os
import subprocess
import sys

import pytest

from ualm_jax.models.config import QWEN2_5, Architecture, Execution, layer_bytes
from ualm_jax.parallel import gpu_flags
from ualm_jax.tokens.vocabulary import Vocabulary


def test_thresholds_are_the_bytes_of_a_layer():
    layer = layer_bytes(Architecture(QWEN2_5["7b"], Vocabulary(152_064, 1024)), Execution())
    assert layer == pytest.approx(466e6, rel=0.01)
    flags = gpu_flags.flags_for("hopper", (0, 12), layer)
    assert set(flags.values()) == {str(layer)} and len(flags) == 3


def test_a_jax_older_than_the_table_gets_no_flags():
    assert gpu_flags.flags_for("hopper", (0, 4), 1) == {}


def test_jaxlib_accepts_every_flag_of_the_table():
    flags = {}
    for architecture, version in gpu_flags.TABLE:
        flags |= gpu_flags.flags_for(architecture, version, 1)
    assert gpu_flags.merge("", flags)[1] == []


def test_the_users_flags_win_and_refused_ones_are_left_out():
    asked = "--xla_gpu_all_reduce_combine_threshold_bytes=7 --xla_gpu_no_longer_there=true --xla_gpu_autotune_level=x"
    flags, refused = gpu_flags.merge(asked, gpu_flags.flags_for("ampere", (0, 10), 5))
    assert set(refused) == {"xla_gpu_no_longer_there", "xla_gpu_autotune_level"}
    assert "--xla_gpu_all_reduce_combine_threshold_bytes=7" in flags.split()
    assert "--xla_gpu_all_gather_combine_threshold_bytes=5" in flags.split()


def test_jax_starts_with_what_apply_sets():
    program = (
        "from ualm_jax.parallel import gpu_flags; import jax; gpu_flags.apply('hopper', 1 << 20);"
        "gpu_flags.take_memory(); jax.devices();"
        "print(jax.config.jax_optimization_level); import os; print(os.environ['XLA_FLAGS']);"
        "from jaxlib import xla_client; print(xla_client.generate_pjrt_gpu_plugin_options()['memory_fraction'])"
    )
    environment = {name: value for name, value in os.environ.items() if "MEM_FRACTION" not in name}
    environment |= {"XLA_FLAGS": "--xla_gpu_nonsense=1", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-500:]
    assert run.stdout.startswith("O1\n--xla_gpu_all_gather_combine_threshold_bytes=1048576 ")
    assert "xla_gpu_nonsense" in run.stderr
    assert run.stdout.splitlines()[-1] == "0.92"
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.5"
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "0.5"
