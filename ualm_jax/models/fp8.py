"""Products of the layers in 8-bit floating point, for training: an experiment, behind `execution.layer_products`.

What goes into a product is rounded to 8 bits: x and kernels to e4m3 (3 bits of mantissa, up to 448), cotangents to e5m2
(2 bits, up to 57 344). Each array has one scale, a power of two, which costs no digits: the smallest with which its
largest number fits. Parameters, their gradients and moments, and all between the products stay as they are. An array
is all rows of a microbatch: a batch in other parts may round its smallest numbers otherwise.

Hopper's tensor cores multiply such numbers at twice the rate of bfloat16 (docs/performance.md), and add them up in
fewer bits than float32 has. So on Hopper cuBLAS is asked by name for the algorithm that moves sums into float32 on
the way; left to itself XLA may choose kernels that do not, or that widen the numbers first. Elsewhere they are widened.

Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022; with scales of the numbers themselves, not of those
of earlier steps, so that a step depends on nothing but its batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from ualm_jax.models.attention.backend import device_of_program, is_hopper

VALUES, COTANGENTS = jnp.float8_e4m3fn, jnp.float8_e5m2
_LEAST = 2.0**-100  # of what a scale is made of: an array of zeros has one, too


class Rounded(NamedTuple):
    """Numbers of 8 bits and what to multiply them by, in the dtype that they had."""

    values: Num[Array, "..."]
    scale: Float[Array, ""]


def rounded(x: Float[Array, "..."], dtype) -> Rounded:
    """`x` in numbers of `dtype`. Where one is NaN or infinite, all become NaN."""
    largest = jnp.max(jnp.abs(x)).astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(jnp.maximum(largest, _LEAST) / float(jnp.finfo(dtype).max), jnp.int32)
    scale = jax.lax.bitcast_convert_type((bits + 0x7FFFFF) & 0x7F800000, jnp.float32)  # up to a power of two
    scale = jnp.where(jnp.isfinite(largest), scale, jnp.nan).astype(x.dtype)
    return Rounded((x / scale).astype(dtype), scale)


def einsum(equation: str, left: Array | Rounded, right: Array | Rounded, out_sharding=None) -> Array:
    """`jnp.einsum`, of two arrays or of two that were rounded, in the dtype that they have or had."""
    if not isinstance(left, Rounded):
        return jnp.einsum(equation, left, right, out_sharding=out_sharding)
    dtype = left.scale.dtype
    out: dict = dict(preferred_element_type=jnp.float32, out_sharding=out_sharding)
    if is_hopper(device_of_program()[1]):
        # Scales are powers of two: a sum loses nothing by being stored in the dtype that it will have.
        out |= dict(preferred_element_type=dtype, precision=jax.lax.DotAlgorithmPreset.ANY_F8_ANY_F8_F32)
    sums = jnp.einsum(equation, left.values, right.values, **out)
    return (sums * left.scale * right.scale).astype(dtype)
