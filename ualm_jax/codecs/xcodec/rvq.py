"""Residual vector quantisation (Zeghidour et al. 2021, "SoundStream", algorithm 1).

Codewords are as wide as what is quantised, and the nearest is chosen, as X-codec has it. Or they are factorised (Kumar
et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN", section 3.2): codewords are of a few numbers, one
linear map of each codebook takes vectors to as many, another takes codewords back, and the codeword is chosen whose
direction is nearest. `projections` holds those maps, and is None where codes are not factorised: {"in_proj": {"kernel":
[Q, D, d], "bias": [Q, d]}, "out_proj": {"kernel": [Q, d, D], "bias": [Q, D]}}; for one codebook, without Q.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

PRECISION = jax.lax.Precision.HIGHEST  # codes that sit near a tie must not depend on the device

Projections = dict[str, dict[str, Array]]


def nearest(codewords: Float[Array, "V D"], x: Float[Array, "*rows D"]) -> Int[Array, "*rows"]:
    """The index of the codeword nearest to each vector."""
    # The expression and its order of additions are those of HF, so that near ties round alike.
    squares = (x**2).sum(-1, keepdims=True)
    products = jnp.dot(x, codewords.T, precision=PRECISION)
    return jnp.argmax(-(squares - 2 * products + (codewords**2).sum(-1)), axis=-1)


def chosen(
    codewords: Float[Array, "V d"], x: Float[Array, "*rows d"], projection: Projections | None
) -> Int[Array, "*rows"]:
    """The index of the codeword for each vector, which is `lowered`: nearest, or of the nearest direction."""
    return nearest(codewords, x) if projection is None else nearest(unit(codewords), unit(x))


def unit(x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """Vectors of length one; zero stays zero."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def lowered(x: Float[Array, "*rows D"], projection: Projections | None) -> Float[Array, "*rows d"]:
    """What one codebook compares."""
    return x if projection is None else _linear(x, projection["in_proj"])


def raised(codewords: Float[Array, "*rows d"], projection: Projections | None) -> Float[Array, "*rows D"]:
    """What the codewords of one codebook stand for."""
    return codewords if projection is None else _linear(codewords, projection["out_proj"])


def _linear(x: Array, params: dict[str, Array]) -> Array:
    return jnp.dot(x, params["kernel"], precision=PRECISION) + params["bias"]


def quantize(
    codebooks: Float[Array, "Q V d"], x: Float[Array, "B T D"], projections: Projections | None = None
) -> Int[Array, "B T Q"]:
    """The codeword of each codebook in turn, each one for what the earlier ones left over."""

    def stage(residual, given):
        codebook, projection = given
        codes = chosen(codebook, lowered(residual, projection), projection)
        return residual - raised(codebook[codes], projection), codes

    _, codes = jax.lax.scan(stage, x, (codebooks, projections))
    return jnp.moveaxis(codes, 0, -1)


def dequantize(
    codebooks: Float[Array, "Q V d"], codes: Int[Array, "B T Q"], projections: Projections | None = None
) -> Float[Array, "B T D"]:
    """The sum of what the codewords stand for."""
    tables = codebooks if projections is None else jax.vmap(raised)(codebooks, projections)
    return sum(tables[q][codes[:, :, q]] for q in range(len(tables)))
