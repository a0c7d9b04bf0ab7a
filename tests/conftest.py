"""Eight virtual CPU devices, one mesh of one device by default, and the golden data."""

import atexit
import gc
import json
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads wait for each other by spinning
if "UALM_CACHE_DIR" not in os.environ:
    # What the programs that tests start compile, on one device each, is kept for the session. Its first process makes
    # the folder; the workers of xdist inherit it.
    os.environ["UALM_CACHE_DIR"] = tempfile.mkdtemp(prefix="ualm-tests-")
    atexit.register(shutil.rmtree, os.environ["UALM_CACHE_DIR"], ignore_errors=True)

import jax
import jaxtyping
import numpy as np
import pytest
from helpers.quick_checks import check_quickly
from helpers.quick_programs import compile_quickly, fused

check_quickly()  # before anything of the package is imported

from ualm_jax.parallel.startup import share_threads  # noqa: E402

compile_quickly()
share_threads(8)
# Tracing makes many objects and few cycles: with Python's own thresholds a fifth of it goes to looking for them.
gc.set_threshold(50_000, 20, 20)

TESTS = pathlib.Path(__file__).parent
# Programs that tests start find `helpers` too, and the package compiled by the first of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])

GOLDEN = TESTS / "golden" / "reference_tiny"


def pytest_collection_finish():
    gc.freeze()  # what was imported stays


@pytest.fixture
def as_installed():
    """Without the checks of annotated types that pytest adds to every function: what the package itself says."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def golden_dir() -> pathlib.Path:
    return GOLDEN


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """What the reference computed, by name (`reason/logits`, ...)."""
    with np.load(GOLDEN / "arrays.npz") as arrays:
        return {name.replace("__", "/"): arrays[name] for name in arrays.files}


@pytest.fixture(scope="session")
def expected() -> dict:
    """Losses, conversations, gradient norms and vocabulary of the reference."""
    return json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture(scope="session")
def bucket():
    """A bucket of an emulator, gs://bucket."""
    from helpers.emulated_buckets import emulated_buckets

    from ualm_jax.buckets import open_folder

    with emulated_buckets() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield open_folder("gs://bucket")


@pytest.fixture(autouse=True)
def one_device_mesh():
    """Every test sees a mesh, as every program does; tests that want eight devices set their own."""
    from ualm_jax.parallel.mesh import MeshConfig, make_mesh

    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        yield


@pytest.fixture(scope="module")
def fused_programs():
    """For tests that two different programs give the same bits."""
    with fused():
        yield
