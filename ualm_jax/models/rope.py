"""Rotary position embedding."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rope_tables(
    positions: Int[Array, "B T"], head_dim: int, theta: float
) -> tuple[Float[Array, "B T H2"], Float[Array, "B T H2"]]:
    """Cosine and sine of every position's angles, in float32: bf16 has too few bits for large positions."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = positions[:, :, None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def apply_rope(x: Float[Array, "B T *heads H"], cos, sin) -> Float[Array, "B T *heads H"]:
    """Rotate-half RoPE: the first half of a head is paired with the second."""
    axes = tuple(range(2, x.ndim - 1))
    cos, sin = jnp.expand_dims(cos, axes), jnp.expand_dims(sin, axes)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate(rotate(first, second, cos, sin), axis=-1).astype(x.dtype)


def rotate(first, second, cos, sin):
    """Both halves of a head, turned."""
    return first * cos - second * sin, second * cos + first * sin
