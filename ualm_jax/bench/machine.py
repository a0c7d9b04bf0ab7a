"""What this machine is, and what it does at its best: floors that were measured here, not read in a data sheet."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess

import jax
import jax.numpy as jnp

from ualm_jax.bench.timing import time_in_turn
from ualm_jax.errors import UserError
from ualm_jax.parallel.hardware import peak_of

_REPEATS = 5


def facts() -> dict[str, str | int]:
    """What a figure of this machine must be read with."""
    device = jax.devices()[0]
    return {"device": device.device_kind, "devices": jax.device_count()} | host()


def host() -> dict[str, str | int]:
    """What is known without starting JAX, which would take a card's memory: driver, processor, versions."""
    found: dict[str, str | int] = {}
    driver = _driver()
    if driver is not None:
        found["driver"] = driver
    found |= {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "load": f"{os.getloadavg()[0]:.1f}"}
    found["python"] = platform.python_version()
    for package in ("jax", "jaxlib", "flax", "tokamax", "torch", "transformers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _driver() -> str | None:
    """The version of the first NVIDIA card's driver, with the card's name and power limit."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version,name,power.limit", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    )
    return asked.stdout.partition("\n")[0].strip() if asked.returncode == 0 else None


def _processor() -> str:
    """Its name on Linux; elsewhere the kind of its instructions."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


@functools.cache
def matmul_flops(dtype: str) -> float:
    """Operations per second of a square matrix product in `dtype` on one device: the best of several sizes."""
    sizes = (512, 1024, 2048) if jax.devices()[0].platform == "cpu" else (4096, 8192, 16384)
    return max(2.0 * size**3 / _best(jnp.matmul, (size, size), dtype, 2) for size in sizes)


@functools.cache
def copy_bandwidth(dtype: str) -> float:
    """Bytes per second that one device reads and writes while it copies an array: the best of several sizes.

    Each byte is counted twice, once read and once written. Arrays are far larger than a CPU's caches.
    """
    mebibytes = (256, 512) if jax.devices()[0].platform == "cpu" else (256, 1024, 4096)
    width = jnp.dtype(dtype).itemsize

    def speed(size: int) -> float:
        # Negation, because a plain copy could be optimised away; it costs nothing beside the memory.
        return 2.0 * size / _best(jnp.negative, (size // width,), dtype, 1)

    return max(speed(count * 2**20) for count in mebibytes)


def _best(f, shape: tuple[int, ...], dtype: str, operands: int) -> float:
    """Least seconds of f on arrays of `shape` on the first device."""
    mesh = jax.make_mesh((1,), ("one",), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        arrays = [jnp.ones(shape, jnp.dtype(dtype)) * (i + 1) for i in range(operands)]
        compiled = jax.jit(f)
        return time_in_turn({"": lambda: jax.block_until_ready(compiled(*arrays))}, _REPEATS)[""].spread[0]


def compute_floor(dtype: str, devices: int) -> tuple[float, float, tuple[str, ...]]:
    """Operations per second of `devices`: measured, by the maker's figures, and what to say about both.

    Virtual CPU devices share the cores of one, and count as one. Where no figures are known the measured ones stand in.
    """
    device = jax.devices()[0]
    count = 1 if device.platform == "cpu" else devices
    measured = matmul_flops(dtype) * count
    note = f"measured matmul: {measured / 1e12:,.3f} TFLOP/s ({dtype}, {count} of {device.device_kind})"
    try:
        peak = peak_of(device.device_kind)
    except UserError:
        peak = None
    if peak is None or dtype != "bfloat16":
        return measured, measured, (note, "MFU is of the measured matmul: the table of peaks has nothing for it")
    return measured, peak.flops * count, (note, f"MFU is of {peak.name}: {peak.flops * count / 1e12:,.0f} TFLOP/s")
