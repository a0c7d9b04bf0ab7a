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
_FLASH = {"tpu": "splash", "gpu": "tokamax", "cuda": "tokamax"}


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
    platform = _platform()
    if backend == "auto":
        backend = _choose(platform, q.shape, q.dtype.name, spec.causal)
    else:
        reason = _MODULES[backend].unable(platform, q.shape, q.dtype.name)
        if reason is not None:
            raise UserError(f"execution.attention = {backend!r} can not be used: {reason}; choose auto or xla.")
    return _MODULES[backend].attend(q, k, v, spec)


@functools.cache
def _choose(platform: str, shape: tuple[int, ...], dtype: str, causal: bool) -> str:
    flash = _FLASH.get(platform)
    reason = f"there is no kernel for {platform}" if flash is None else _MODULES[flash].unable(platform, shape, dtype)
    chosen = flash if reason is None else "xla"
    kind = "causal" if causal else "full"
    why = "" if reason is None else f" ({reason})"
    level = logging.DEBUG if flash is None else logging.INFO  # where there is no kernel, there is no choice to report
    log.log(level, "%s attention over %d positions, head_dim %d: %s%s", kind, shape[1], shape[-1], chosen, why)
    return chosen


def _platform() -> str:
    """Of the devices the program is for: a program may be compiled for devices this machine lacks."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
