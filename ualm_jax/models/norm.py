"""Root-mean-square norm, and what its gradient does where there is hardly anything to norm.

A position whose condition was dropped has an embedding of exactly zero, and stays zero through all layers until biases
have moved. There the norm's slope is 1 / sqrt(eps) = 1000, at every norm of every layer again: in a fresh model such a
position multiplies gradients by the tens of thousands. docs/train.md has the figures.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST_SLOPE = 50.0  # the slope at an embedding as it is initialised, with a standard deviation of 0.02


def rms_norm(
    x: Float[Array, "... D"], scale: Float[Array, " D"], eps: float, gradient: str = "exact"
) -> Float[Array, "... D"]:
    """`x` normed, in float32. gradient: see `Execution.norm_gradient`; it does not change the values."""
    return _bounded(x, scale, eps) if gradient == "bounded" else _exact(x, scale, eps)


def _exact(x, scale, eps):
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32**2, axis=-1, keepdims=True) + eps)
    return (x32 * scale.astype(jnp.float32)).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _bounded(x, scale, eps):
    return _exact(x, scale, eps)


def _forward(x, scale, eps):
    return _exact(x, scale, eps), (x, scale)


def _backward(eps, residuals, g):
    x, scale = residuals
    dx, dscale = jax.vjp(lambda x, scale: _exact(x, scale, eps), x, scale)[1](g)
    slope = jax.lax.rsqrt(jnp.mean(x.astype(jnp.float32) ** 2, axis=-1, keepdims=True) + eps)
    return (dx * jnp.minimum(1.0, LARGEST_SLOPE / slope)).astype(dx.dtype), dscale


_bounded.defvjp(_forward, _backward)
