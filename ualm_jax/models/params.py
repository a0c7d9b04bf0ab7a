"""How parameters come to be: one call gives initial value, shape and sharding. And how they change dtype."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ualm_jax.parallel.sharding import spec


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], *, std: float, dtype) -> nnx.Param:
    """Normal(0, std) parameter of `shape`, split as its logical `axes` say."""
    value = jax.random.normal(rngs.params(), shape, jnp.float32, out_sharding=spec(*axes))
    return nnx.Param((std * value).astype(dtype))


def constant(fill: float, shape: tuple[int, ...], axes: tuple[str | None, ...], *, dtype) -> nnx.Param:
    """Parameter filled with one number: biases and norm scales."""
    return nnx.Param(jnp.full(shape, fill, dtype, out_sharding=spec(*axes)))


def cast_floats(tree: Any, dtype) -> Any:
    """Arrays of floats in `dtype`, others as they are."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
