"""Residual vector quantisation (Zeghidour et al. 2021, "SoundStream", algorithm 1), Euclidean codebooks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

PRECISION = jax.lax.Precision.HIGHEST  # codes that sit near a tie must not depend on the device


def nearest(codewords: Float[Array, "V D"], x: Float[Array, "*rows D"]) -> Int[Array, "*rows"]:
    """The index of the codeword nearest to each vector."""
    # The expression and its order of additions are those of HF, so that near ties round alike.
    squares = (x**2).sum(-1, keepdims=True)
    products = jnp.dot(x, codewords.T, precision=PRECISION)
    return jnp.argmax(-(squares - 2 * products + (codewords**2).sum(-1)), axis=-1)


def quantize(codebooks: Float[Array, "Q V D"], x: Float[Array, "B T D"]) -> Int[Array, "B T Q"]:
    """The nearest codeword of each codebook in turn, each one for what the earlier ones left over."""

    def stage(residual, codebook):
        codes = nearest(codebook, residual)
        return residual - codebook[codes], codes

    _, codes = jax.lax.scan(stage, x, codebooks)
    return jnp.moveaxis(codes, 0, -1)


def dequantize(codebooks: Float[Array, "Q V D"], codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
    """The sum of the codewords."""
    return sum(codebooks[q][codes[:, :, q]] for q in range(codebooks.shape[0]))
