"""Flash attention on GPUs by the tokamax library (extra `cuda`).

Its public call takes segments only as a dense mask. Underneath, a mask may be a range of keys for every query, which
costs O(T) and lets the kernels skip blocks; that part of tokamax is private, and this is the one file that knows it.
"""

import functools
import importlib.util
import logging

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from ualm_jax.models.attention.sharded import on_each_device
from ualm_jax.models.attention.spec import SAVED, AttentionSpec

_BLOCK = 128  # of queries, in tokamax's kernel for Hopper


def unable(platform: str, shape: tuple[int, ...], dtype: str) -> str | None:
    """Why this backend can not be used; None where it can."""
    if platform not in ("gpu", "cuda"):
        return f"its kernels are for NVIDIA GPUs and this is {platform}"
    if importlib.util.find_spec("tokamax") is None:
        return "the package tokamax is not installed (pip install '.[cuda]')"
    if shape[1] % _BLOCK:
        return f"its kernels take blocks of {_BLOCK} positions and there are {shape[1]}"
    return None


def attend(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    spec: AttentionSpec,
    implementation: str | None = None,
) -> Float[Array, "B T K G H"]:
    """implementation: a kernel of tokamax by name; None for the GPU's: mosaic from Hopper on, else triton."""
    from absl import flags
    from tokamax._src.ops.attention import api, base

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # tokamax reads flags, and would parse the whole command line for them
    _quiet()
    if implementation is None:
        implementation = "mosaic_gpu" if _hopper_or_newer() else "triton"
    kernel = api.IMPLEMENTATIONS[implementation]

    def local(q, k, v, start, end):
        B, T, K, G, H = q.shape
        if spec.causal:
            mask = base.Mask(k_start=start[:, None], is_causal=True)
        else:
            mask = base.Mask(k_start=start[:, None], k_end=end[:, None])
        attended = kernel(q.reshape(B, T, K * G, H), k, v, mask=mask).reshape(q.shape)
        return checkpoint_name(attended, SAVED)

    return on_each_device(local, q, k, v, *spec.with_ranges().ranges)


@functools.cache
def _quiet() -> None:
    """A line of 700 characters for every kernel says that its default blocks were not tuned for these shapes."""
    logging.getLogger("absl").addFilter(lambda record: not str(record.msg).startswith("Autotuning cache miss"))


def _hopper_or_newer() -> bool:
    device = jax.sharding.get_abstract_mesh().abstract_device
    kind = jax.devices()[0].device_kind if device is None else device.device_kind
    return any(name in kind for name in ("H100", "H200", "GH200", "B200", "GB200"))
