"""What a device can do at most, by its makers' figures; dense bf16, one JAX device."""

import dataclasses

from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Peak:
    """flops: bf16 operations per second. memory_bandwidth: bytes per second. memory: bytes.

    link_bandwidth: bytes per second a device can send to the others of its machine or pod, one way, over all its
    links. host_bandwidth: the same across machines where that is another network (GPUs: one 400 Gb/s, A100 200 Gb/s,
    InfiniBand port per GPU, as in DGX), else None.
    """

    name: str
    flops: float
    memory_bandwidth: float
    memory: float
    link_bandwidth: float
    host_bandwidth: float | None = None


_T, _G, _GIB = 1e12, 1e9, 2.0**30

# NVIDIA: data sheets of A100, H100 SXM, H200 SXM and HGX B200 (dense = half of the figure "with sparsity"); NVLink 3, 4
# and 5 have 600, 900 and 1800 GB/s both ways, half of it one way. Google: cloud.google.com/tpu/docs, pages v4, v5e,
# v5p, v6e; interchip bandwidth 2400, 1600, 4800 and 3584 Gb/s per chip is the sum of all links both ways in the tables
# of v5e (four links of 400), v5p (six of 800) and v6e (four of 896); half of it is one way.
PEAKS = {
    "a100-40": Peak("A100 40 GB", 312 * _T, 1555 * _G, 40 * _G, 300 * _G, 25 * _G),
    "a100-80": Peak("A100 80 GB", 312 * _T, 2039 * _G, 80 * _G, 300 * _G, 25 * _G),
    "h100": Peak("H100 80 GB", 989 * _T, 3350 * _G, 80 * _G, 450 * _G, 50 * _G),
    "h200": Peak("H200 141 GB", 989 * _T, 4800 * _G, 141 * _G, 450 * _G, 50 * _G),
    "b200": Peak("B200 180 GB", 2250 * _T, 7700 * _G, 180 * _G, 900 * _G, 50 * _G),
    "v4": Peak("TPU v4", 275 * _T, 1228 * _G, 32 * _GIB, 150 * _G),
    "v5e": Peak("TPU v5e", 197 * _T, 819 * _G, 16 * _GIB, 100 * _G),
    "v5p": Peak("TPU v5p", 459 * _T, 2765 * _G, 95 * _GIB, 300 * _G),
    "v6e": Peak("TPU v6e", 918 * _T, 1640 * _G, 32 * _GIB, 224 * _G),
}

# What JAX calls them (`device.device_kind`), most special first.
_KINDS = (
    ("A100-SXM4-40GB", "a100-40"),
    ("A100-PCIE-40GB", "a100-40"),
    ("A100", "a100-80"),
    ("H200", "h200"),
    ("H100", "h100"),
    ("B200", "b200"),
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5e", "v5e"),
    ("TPU v5p", "v5p"),
    ("TPU v5", "v5p"),
    ("TPU v6", "v6e"),
)


def peak_of(device_kind: str) -> Peak:
    """The figures of a `device_kind`. Raises UserError for one that is not in the table."""
    for part, name in _KINDS:
        if part in device_kind:
            return PEAKS[name]
    raise UserError(
        f"There are no peak figures for {device_kind!r}; the table has {', '.join(PEAKS)} "
        "(ualm_jax/parallel/hardware.py)."
    )
