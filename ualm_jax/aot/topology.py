"""Machines to compile for that need not be here."""

import dataclasses
import importlib.util
import math
import os
import re
import shutil
from typing import Any

from ualm_jax.errors import UserError

_TPUS = ("v4", "v5e", "v5p", "v6e")
# What libtpu otherwise asks a metadata server for, and its refusal to be loaded by two programs at once.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5e-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """devices: for `make_mesh`. devices_per_machine: None where all devices share one network (TPU pods)."""

    name: str
    devices: list
    devices_per_machine: int | None


def describe(name: str) -> Topology:
    """`v5e:4x4`, `v5p:8x8x8` (TPU shapes), `h100:8`, `a100-80:4x8` (machines x GPUs), or `cpu:4` (virtual devices).

    Sets environment variables of libtpu; call it before JAX has started. Raises UserError for a name that is
    unknown, and where the plugin that compiles for it is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind == "cpu" and shape.isdigit() and 1 <= int(shape) <= 512:
        return _virtual(name, int(shape))
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or kind not in (*_TPUS, *_GPUS):
        raise UserError(
            f"--topology {name} is not known; expected a TPU ({', '.join(_TPUS)}) and its shape as in v5e:4x4, or a "
            f"GPU ({', '.join(_GPUS)}) and its number as in h100:8, or machines x GPUs as in h100:4x8, "
            "or cpu:4 for virtual devices, 512 at most."
        )
    return _tpu(name) if kind in _TPUS else _gpu(name, kind, [int(n) for n in shape.split("x")])


def _virtual(name: str, count: int) -> Topology:
    import jax

    jax.config.update("jax_num_cpu_devices", count)
    return Topology(name, jax.devices("cpu"), None)


def _tpu(name: str) -> Topology:
    if not _installed("libtpu"):
        raise UserError(f"Compiling for {name} needs the TPU compiler; install it with: pip install '.[tpu]'.")
    for variable, value in _LIBTPU.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    bounds = {"chips_per_host_bounds": (1, 1, 1)} if name.endswith(":1x1") else {}
    if name.startswith("v4"):
        bounds["chip_config_name"] = "megacore"  # one JAX device per chip of two cores, as on real v4 machines
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **bounds).devices
    except Exception as error:  # libtpu raises several kinds
        raise UserError(f"libtpu does not know --topology {name}: {' '.join(str(error).split())[:200]}") from error
    return Topology(name, list(devices), None)


def _gpu(name: str, kind: str, shape: list[int]) -> Topology:
    if not _installed("jax_plugins", "jax_plugins.xla_cuda13"):
        raise UserError(f"Compiling for {name} needs JAX's GPU plugin; install it with: pip install '.[cuda]'.")
    if shutil.which("ptxas") is None and not _installed("nvidia"):
        raise UserError(
            f"Compiling for {name} needs a CUDA toolkit; install it with: pip install nvidia-cuda-nvcc nvidia-nvvm."
        )
    if len(shape) > 2:
        raise UserError(f"--topology {name} must be GPUs, or machines x GPUs, as in h100:8 or h100:4x8.")
    machines, gpus = (1, *shape) if len(shape) == 1 else shape
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(
        platform="cuda",
        topology_name=kind,
        target_config=_target_config(_GPUS[kind]),
        topology=f"1x{machines}x{gpus}",
    ).devices
    if len(devices) != math.prod(shape):
        raise UserError(f"JAX's GPU plugin made {len(devices)} devices of --topology {name}.")
    return Topology(name, list(devices), gpus)


def _installed(*modules: str) -> bool:
    """Whether these can be imported; a package stands before what lies in it."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


# Public figures of the cards, in the fields XLA asks for.
_GPUS = {
    "a100-80": dict(
        name="NVIDIA A100-SXM4-80GB", major=8, minor=0, cores=108, clock_ghz=1.41, memory=80 << 30, bandwidth=2.039e12,
        l2=40 << 20, shared=166912, shared_block=164864,
    ),
    "h100": dict(
        name="NVIDIA H100 80GB HBM3", major=9, minor=0, cores=132, clock_ghz=1.98, memory=80 << 30, bandwidth=3.35e12,
        l2=50 << 20, shared=233472, shared_block=232448,
    ),
    "h200": dict(
        name="NVIDIA H200", major=9, minor=0, cores=132, clock_ghz=1.98, memory=141 << 30, bandwidth=4.8e12,
        l2=50 << 20, shared=233472, shared_block=232448,
    ),
}  # fmt: skip


def _target_config(card: dict[str, Any]) -> str:
    """XLA's GpuTargetConfigProto as text, of an entry of `_GPUS`."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {card["shared"]}
  threads_per_core_limit: 2048
  core_count: {card["cores"]}
  fpus_per_core: {128 if card["major"] >= 9 else 64}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(card["bandwidth"])}
  l2_cache_size: {card["l2"]}
  clock_rate_ghz: {card["clock_ghz"]}
  device_memory_size: {card["memory"]}
  shared_memory_per_block_optin: {card["shared_block"]}
  cuda_compute_capability {{ major: {card["major"]} minor: {card["minor"]} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: 13 }}
device_description_str: "{card["name"]}"
"""
