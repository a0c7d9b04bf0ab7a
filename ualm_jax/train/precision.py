"""What an optimiser keeps in few bits and computes in many."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, BFloat16, Float32, Int

from ualm_jax.models.params import cast_floats

_MIX = np.uint32([0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35])
_MOMENTS = 1 << 31  # a seed that no step is: noise of moments is not that of parameters


def stored_as(optimizer: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
    """`optimizer` computing in float32, whatever the dtype of parameters and gradients, its state kept in `dtype`.

    Updates are float32. To bfloat16, moments are rounded up or down at random, right on average: to nearest, one that
    moves by less than a 512th of itself a step would stand still. The steps that the state has counted are the seed.
    """

    def init(params):
        return cast_floats(optimizer.init(cast_floats(params, jnp.float32)), dtype)

    def update(grads, state, params):
        taken = next(leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.integer))
        grads, state, params = (cast_floats(tree, jnp.float32) for tree in (grads, state, params))
        updates, state = optimizer.update(grads, state, params)
        key = jax.random.fold_in(jax.random.key(_MOMENTS), taken)
        leaves, structure = jax.tree.flatten(state)
        return updates, jax.tree.unflatten(structure, _rounded(leaves, [dtype] * len(leaves), key))

    return optax.GradientTransformation(init, update)


def apply_updates(params: Any, updates: Any, step: Int[Array, ""]) -> Any:
    """params + updates in the dtype of the parameters.

    bfloat16 has 8 bits: added to nearest, an update of less than a 512th of its parameter is lost, and late in training
    most are. So bfloat16 parameters are rounded up or down at random, right on average; `step` is the seed.
    """
    leaves, structure = jax.tree.flatten(params)
    totals = [leaf.astype(jnp.float32) + update for leaf, update in zip(leaves, jax.tree.leaves(updates), strict=True)]
    return jax.tree.unflatten(structure, _rounded(totals, [leaf.dtype for leaf in leaves], jax.random.key(step)))


def _rounded(arrays: list[Array], dtypes: list[Any], key: Array) -> list[Array]:
    """`arrays` in `dtypes`, those of integers as they are; to bfloat16 at random, each with noise of its own."""

    def one(number, array, dtype):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        if jnp.dtype(dtype) != jnp.bfloat16:
            return array.astype(dtype)
        return stochastic_round(array, jax.random.fold_in(key, number))

    return [one(*each) for each in zip(range(len(arrays)), arrays, dtypes, strict=True)]


def stochastic_round(x: Float32[Array, "*shape"], key: Array) -> BFloat16[Array, "*shape"]:
    """One of the two bfloat16 neighbours of each number, the nearer one the likelier: x is its mean."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = _hashed_places(x, jax.random.bits(key, (), jnp.uint32)) >> 16
    rounded = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def _hashed_places(x: Array, seed: Array) -> Array:
    """A number for each place of x, as good as random for rounding: with it a rounded number takes 19 operations, with
    JAX's generator 56 (XLA's count), most of what an optimiser's step would compute. MurmurHash3's finaliser."""
    sharding = jax.typeof(x).sharding.spec
    place = jnp.zeros(x.shape, jnp.uint32, out_sharding=sharding)
    for axis, size in enumerate(x.shape):
        place = place * size + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis, out_sharding=sharding)
    place = place * _MIX[0] + seed
    place = (place ^ (place >> 16)) * _MIX[1]
    place = (place ^ (place >> 13)) * _MIX[2]
    return place ^ (place >> 16)
