"""XLA settings for NVIDIA cards: one table, applied before JAX starts, filtered by what the installed jaxlib accepts.

XLA ends the process at a flag it does not know, and flags come and go with its versions; hence the filter.
Sources: JAX-Toolbox `docs/GPU_performance.md` (optimisation level O1 brings latency hiding, pipelined collectives and
loop double buffering; combine thresholds at least the bytes of one layer's weights), JAX's `gpu_performance_tips`.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping

log = logging.getLogger(__name__)

# (architecture, from this jax version on) -> flags; "{layer}" is the bytes of one layer's weights. The newest entry
# that is not newer than the installed jax counts.
_COMBINE = {
    "xla_gpu_all_gather_combine_threshold_bytes": "{layer}",
    "xla_gpu_all_reduce_combine_threshold_bytes": "{layer}",
    "xla_gpu_reduce_scatter_combine_threshold_bytes": "{layer}",
}
TABLE: dict[tuple[str, tuple[int, int]], dict[str, str]] = {
    ("ampere", (0, 10)): _COMBINE,
    ("hopper", (0, 10)): _COMBINE,
    ("blackwell", (0, 10)): _COMBINE | {"xla_gpu_enable_command_buffer": "FUSION,CUSTOM_CALL"},
}
OPTIMIZATION_LEVEL = "O1"
MEMORY_FRACTION = "0.92"
"""Of a card, for arrays. JAX takes 0.75 by default, 60 of 80 GB; a 7B trains in 71 (docs/performance.md). The rest is
for libraries (cuBLAS, NCCL) and programs."""
_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_ARCHITECTURES = {
    "8.0": "ampere",
    "8.6": "ampere",
    "8.9": "ampere",
    "9.0": "hopper",
    "10.0": "blackwell",
    "10.3": "blackwell",
}


def architecture() -> str | None:
    """Of this machine's first NVIDIA card, asked from the driver; None without one, or for one not in the table."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], capture_output=True, text=True
    )
    return _ARCHITECTURES.get(asked.stdout.partition("\n")[0].strip()) if asked.returncode == 0 else None


def take_memory() -> None:
    """Sets JAX's share of an NVIDIA card's memory, where the user has not. JAX must not have touched a device yet."""
    if not any(name in os.environ for name in _FRACTIONS):
        os.environ[_FRACTIONS[0]] = MEMORY_FRACTION


def flags_for(architecture: str, jax_version: tuple[int, int], layer_bytes: int) -> dict[str, str]:
    """The table's flags. layer_bytes: weights of one layer in the compute dtype."""
    entries = [key for key in TABLE if key[0] == architecture and key[1] <= jax_version]
    if not entries:
        return {}
    return {name: value.format(layer=layer_bytes) for name, value in TABLE[max(entries)].items()}


def merge(asked: str, wanted: Mapping[str, str]) -> tuple[str, list[str]]:
    """XLA_FLAGS with the flags `wanted` added, and the names left out because the installed jaxlib refuses them.

    asked: XLA_FLAGS as the user set them; they win over the table's. Asks jaxlib in another process, which takes a
    second or two.
    """
    flags = dict(wanted)
    for word in asked.split():
        name, _, value = word.removeprefix("--").partition("=")
        flags[name] = value
    refused = []
    while flags and (names := _refused(_line(flags)) & flags.keys()):
        refused += sorted(names)
        flags = {name: value for name, value in flags.items() if name not in names}
    return _line(flags), refused


def _line(flags: Mapping[str, str]) -> str:
    return " ".join(f"--{name}={value}" for name, value in flags.items())


def _refused(line: str) -> set[str]:
    """Names that end a process started with these XLA_FLAGS: unknown ones, or the first whose value is no value."""
    environment = os.environ | {"XLA_FLAGS": line, "JAX_PLATFORMS": "cpu"}
    probe = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"], env=environment, capture_output=True, text=True
    )
    if probe.returncode == 0:
        return set()
    unknown = re.search(r"Unknown flags? in XLA_FLAGS:(.*)", probe.stderr)
    if unknown:
        return set(re.findall(r"--(\w+)", unknown.group(1)))
    value = re.search(r"Couldn't interpret value .* for flag (\w+)", probe.stderr)
    # Words that say nothing we can read: better no flags than no run.
    return {value.group(1)} if value else set(re.findall(r"--(\w+)=", line))


def apply(architecture: str, layer_bytes: int) -> str:
    """Sets XLA_FLAGS and JAX's optimisation level, each where the user has not; returns XLA_FLAGS. JAX must not have
    touched a device yet."""
    import jax

    version = tuple(int(part) for part in jax.__version__.split(".")[:2])
    wanted = flags_for(architecture, version, layer_bytes)
    flags, refused = merge(os.environ.get("XLA_FLAGS", ""), wanted)
    if refused:
        log.warning("XLA_FLAGS: jaxlib refuses %s; left out", ", ".join(refused))
    os.environ["XLA_FLAGS"] = flags
    if "JAX_OPTIMIZATION_LEVEL" not in os.environ:
        jax.config.update("jax_optimization_level", OPTIMIZATION_LEVEL)
    return flags
