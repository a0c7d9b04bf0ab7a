"""What an optimiser keeps in few bits and computes in many."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, BFloat16, Float32, Int

from ualm_jax.models.params import cast_floats


def stored_as(optimizer: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
    """`optimizer` computing in float32, whatever the dtype of parameters and gradients, its state kept in `dtype`.

    Updates are float32.
    """

    def init(params):
        return cast_floats(optimizer.init(cast_floats(params, jnp.float32)), dtype)

    def update(grads, state, params):
        grads, state, params = (cast_floats(tree, jnp.float32) for tree in (grads, state, params))
        updates, state = optimizer.update(grads, state, params)
        return updates, cast_floats(state, dtype)

    return optax.GradientTransformation(init, update)


def apply_updates(params: Any, updates: Any, step: Int[Array, ""]) -> Any:
    """params + updates in the dtype of the parameters.

    bfloat16 has 8 bits: added to nearest, an update of less than a 512th of its parameter is lost, and late in training
    most are. So bfloat16 parameters are rounded up or down at random, right on average; `step` is the seed.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = [jax.random.fold_in(jax.random.key(step), number) for number in range(len(leaves))]

    def apply(param, update, key):
        total = param.astype(jnp.float32) + update
        return stochastic_round(total, key) if param.dtype == jnp.bfloat16 else total.astype(param.dtype)

    added = map(apply, leaves, jax.tree.leaves(updates), keys)
    return jax.tree.unflatten(structure, list(added))


def stochastic_round(x: Float32[Array, "*shape"], key: Array) -> BFloat16[Array, "*shape"]:
    """One of the two bfloat16 neighbours of each number, the nearer one the likelier: x is its mean."""
    noise = jax.random.bits(key, x.shape, jnp.uint16, out_sharding=jax.typeof(x).sharding.spec).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    rounded = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)
