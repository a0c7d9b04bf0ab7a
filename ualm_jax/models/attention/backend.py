"""Which backend computes attention."""

import functools
import logging

import jax
from jaxtyping import Array, Float

from ualm_jax.errors import UserError
from ualm_jax.models.attention import pallas, splash, tokamax, xla
from ualm_jax.models.attention.spec import AttentionSpec

log = logging.getLogger(__name__)

_MODULES = {"xla": xla, "splash": splash, "tokamax": tokamax, "pallas": pallas}
_GPUS = ("gpu", "cuda")
_HOPPER = ("H100", "H200", "GH200")


def _preferred(platform: str, kind: str, causal: bool) -> tuple[str, ...]:
    """Kernels for a device, the best first.

    On Hopper, rows that pack several documents take 1.32 ms forwards and backwards with pallas and 2.19 ms with
    tokamax; rows of one document take 4.72 and 2.46 ms (docs/performance.md, `ualm bench attention` on an H200). Full
    attention is what encoders use, with one document in a row. Other GPUs were not measured.
    """
    if platform == "tpu":
        return ("splash",)
    if platform not in _GPUS:
        return ()
    packed = causal and is_hopper(kind)
    return ("pallas", "tokamax") if packed else ("tokamax", "pallas")


def attend(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    spec: AttentionSpec,
    backend: str = "auto",
) -> Float[Array, "B T K G H"]:
    """Softmax attention; G query heads share each of the K key/value heads. Softmax in float32.

    backend: one of `models.config.ATTENTION`; "auto" takes the platform's kernel where it can, else xla, and logs why.
    Raises UserError where a named backend can not do it here.
    """
    platform, kind = device_of_program()
    if backend == "auto":
        backend = _choose(platform, kind, q.shape, q.dtype.name, spec.causal)
    else:
        reason = _MODULES[backend].unable(platform, q.shape, q.dtype.name)
        if reason is not None:
            raise UserError(f"execution.attention = {backend!r} can not be used: {reason}; choose auto or xla.")
    return _MODULES[backend].attend(q, k, v, spec)


@functools.cache
def _choose(platform: str, kind: str, shape: tuple[int, ...], dtype: str, causal: bool) -> str:
    preferred = _preferred(platform, kind, causal)
    chosen, reasons = "xla", [] if preferred else [f"there is no kernel for {platform}"]
    for name in preferred:
        reason = _MODULES[name].unable(platform, shape, dtype)
        if reason is None:
            chosen = name
            break
        reasons.append(reason)
    why = f" ({'; '.join(reasons)})" if reasons else ""
    level = logging.INFO if preferred else logging.DEBUG  # a platform without kernels leaves no choice to report
    what = "causal" if causal else "full"
    log.log(level, "%s attention over %d positions, head_dim %d: %s%s", what, shape[1], shape[-1], chosen, why)
    return chosen


def is_hopper(kind: str) -> bool:
    return any(name in kind for name in _HOPPER)


def device_of_program() -> tuple[str, str]:
    """Platform and kind of the devices the program is for: it may be compiled for devices this machine lacks."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend(), jax.devices()[0].device_kind
    return device.platform, device.device_kind
