"""Attention on a mesh: each device has its own rows and heads, and whole rows of positions."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int

from ualm_jax.parallel.sharding import spec as sharding

_QUERIES, _KEYS, _ROWS = ("batch", None, "kv_heads", None, None), ("batch", None, "kv_heads", None), ("batch", None)


def on_each_device(
    attend: Callable[..., Array],
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    *rows: Int[Array, "B T"],
) -> Float[Array, "B T K G H"]:
    """Calls attend(q, k, v, *rows) on every device with its own part of the arrays."""
    specs = tuple(sharding(*axes) for axes in (_QUERIES, _KEYS, _KEYS, *[_ROWS] * len(rows)))
    mapped = jax.shard_map(attend, in_specs=specs, out_specs=specs[0], check_vma=False)
    return mapped(*map(jax.reshard, (q, k, v, *rows), specs))
