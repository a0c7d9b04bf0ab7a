"""Residual vector quantisation (Zeghidour et al. 2021, "SoundStream", algorithm 1).

Codewords are as wide as what is quantised, and the nearest is chosen, as X-codec has it. Or they are factorised (Yu et
al. 2022, "Vector-quantized Image Modeling with Improved VQGAN", section 3.2; Kumar et al. 2023, "High-Fidelity Audio
Compression with Improved RVQGAN"): a linear map of each codebook takes vectors to a few numbers, of which the direction
alone is kept, the codeword of the nearest direction is chosen, and another linear map takes that direction back.
`projections` holds those maps, and is None where codes are not factorised: {"in_proj": {"kernel": [Q, D, d], "bias":
[Q, d]}, "out_proj": {"kernel": [Q, d, D], "bias": [Q, D]}}; for one codebook, without Q.
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


def project_in(x: Float[Array, "*rows D"], projection: Projections | None) -> Float[Array, "*rows d"]:
    """What one codebook compares: of length one where codes are factorised."""
    return x if projection is None else unit(_linear(x, projection["in_proj"]))


def normalized(codewords: Float[Array, "*rows d"], projection: Projections | None) -> Float[Array, "*rows d"]:
    """What codewords are compared by: of length one where codes are factorised."""
    return codewords if projection is None else unit(codewords)


def project_out(codewords: Float[Array, "*rows d"], projection: Projections | None) -> Float[Array, "*rows D"]:
    """What the codewords of one codebook, which are `normalized`, stand for."""
    return codewords if projection is None else _linear(codewords, projection["out_proj"])


def unit(x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """Vectors of length one; zero stays zero."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def _linear(x: Array, params: dict[str, Array]) -> Array:
    return jnp.dot(x, params["kernel"], precision=PRECISION) + params["bias"]


def quantize(
    codebooks: Float[Array, "Q V d"], x: Float[Array, "B T D"], projections: Projections | None = None
) -> Int[Array, "B T Q"]:
    """The nearest codeword of each codebook in turn, each one for what the earlier ones left over."""

    def stage(residual, given):
        codebook, projection = given
        codewords = normalized(codebook, projection)
        codes = nearest(codewords, project_in(residual, projection))
        return residual - project_out(codewords[codes], projection), codes

    _, codes = jax.lax.scan(stage, x, (codebooks, projections))
    return jnp.moveaxis(codes, 0, -1)


def dequantize(
    codebooks: Float[Array, "Q V d"], codes: Int[Array, "B T Q"], projections: Projections | None = None
) -> Float[Array, "B T D"]:
    """The sum of what the codewords stand for."""
    tables = codebooks
    if projections is not None:
        tables = jax.vmap(lambda codebook, projection: project_out(unit(codebook), projection))(codebooks, projections)
    return sum(tables[q][codes[:, :, q]] for q in range(len(tables)))
