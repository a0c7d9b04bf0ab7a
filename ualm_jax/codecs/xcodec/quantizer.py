"""The residual quantiser while it learns: straight-through gradients, codebooks as moving averages.

Codebooks follow van den Oord et al. 2017 ("Neural Discrete Representation Learning", appendix A.1), their residual
arrangement, dropout and the revival of dead codes Zeghidour et al. 2021 ("SoundStream"). Which codeword is chosen is
decided by `rvq.nearest`, as in a codec in use.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ualm_jax.codecs.xcodec.rvq import nearest

_SMOOTHING = 1e-5  # of a cluster's size, so that an empty one divides by something


class Codebooks(NamedTuple):
    """Codewords, and the moving averages they are the quotient of: vectors summed by code, and how many there were."""

    embed: Float[Array, "Q V D"]
    embed_sum: Float[Array, "Q V D"]
    cluster_size: Float[Array, "Q V"]


class Quantized(NamedTuple):
    """vectors: sums of codewords, through which gradients pass to what was quantised. commitment: mean squared
    distance of what each codebook in use was given to the codeword it chose. counts: how often each code was chosen;
    sums: of what chose it; sample: vectors that each codebook was given, for the revival of dead codes.
    """

    vectors: Float[Array, "B T D"]
    codes: Int[Array, "B T Q"]
    commitment: Float[Array, ""]
    counts: Float[Array, "Q V"]
    sums: Float[Array, "Q V D"]
    sample: Float[Array, "Q V D"]


def quantize_learning(
    embed: Float[Array, "Q V D"],
    x: Float[Array, "B T D"],
    layers: Int[Array, " B"],
    key: Array,
    axes: tuple[str, ...] = (),
) -> Quantized:
    """Quantises each row of the batch with its first `layers` codebooks; the others neither add nor learn.

    axes: of the mesh that rows are split over, inside `jax.shard_map`. What is returned of codes, commitment and
    vectors is of this device's rows, the rest of all rows.
    """
    batch, frames, width = x.shape
    books, size, _ = embed.shape
    flat = x.reshape(-1, width)
    used = jnp.repeat(layers, frames)

    def stage(residual, given):
        book, codewords, key = given
        codes = nearest(codewords, residual)
        active = (book < used).astype(x.dtype)[:, None]
        chosen = codewords[codes] * active
        commitment = jnp.sum(active * (residual - jax.lax.stop_gradient(codewords[codes])) ** 2)
        seen = jax.lax.stop_gradient(residual)
        chose = jax.nn.one_hot(codes, size, dtype=x.dtype) * active
        sums = jnp.dot(chose.T, seen, precision=jax.lax.Precision.HIGHEST)
        picked = _rows(seen, jax.random.randint(key, (size,), 0, len(seen) * _devices(axes)), axes)
        return residual - chosen, (
            chosen,
            codes,
            commitment,
            _total(jnp.sum(chose, 0), axes),
            _total(sums, axes),
            picked,
        )

    given = (jnp.arange(books), jax.lax.stop_gradient(embed), jax.random.split(key, books))
    _, (chosen, codes, commitment, counts, sums, sample) = jax.lax.scan(stage, flat, given)
    total = jnp.sum(chosen, axis=0).reshape(x.shape)
    return Quantized(
        vectors=x + jax.lax.stop_gradient(total - x),
        codes=jnp.moveaxis(codes, 0, -1).reshape(batch, frames, books),
        commitment=jnp.sum(commitment) / (jnp.sum(used) * width),
        counts=counts,
        sums=sums,
        sample=sample,
    )


def _total(x: Array, axes: tuple[str, ...]) -> Array:
    return jax.lax.psum(x, axes) if axes else x


def _devices(axes: tuple[str, ...]) -> int:
    return math.prod(jax.lax.axis_size(axis) for axis in axes)


def _rows(x: Float[Array, "M D"], chosen: Int[Array, " K"], axes: tuple[str, ...]) -> Float[Array, "K D"]:
    """Rows of an array whose first axis is split over `axes`, by their indices in the whole."""
    if not axes:
        return x[chosen]
    place = chosen - jax.lax.axis_index(axes) * len(x)
    here = (0 <= place) & (place < len(x))
    return jax.lax.psum(jnp.where(here[:, None], x[jnp.clip(place, 0, len(x) - 1)], 0.0), axes)


def moved(codebooks: Codebooks, found: Quantized, decay: float, dead_below: float) -> Codebooks:
    """The codebooks after a batch.

    dead_below: of the batch's mean use of a code; a code whose moving average falls under that share of the mean is
        put where one of the batch's vectors lies.
    """
    size = decay * codebooks.cluster_size + (1 - decay) * found.counts
    total = decay * codebooks.embed_sum + (1 - decay) * found.sums
    mean = jnp.mean(size, axis=1, keepdims=True)
    dead = size < dead_below * mean
    size = jnp.where(dead, mean, size)
    total = jnp.where(dead[..., None], mean[..., None] * found.sample, total)
    return Codebooks(total / (size + _SMOOTHING)[..., None], total, size)


def kmeans(
    frames: Float[Array, "M D"], books: int, size: int, rounds: int, key: Array
) -> tuple[Codebooks, Float[Array, " Q"]]:
    """Codebooks by Lloyd's algorithm, each on what the earlier ones left; and the share of variance left by each."""
    power = jnp.sum(frames**2)

    def book(residual, key):
        start, *restart = jax.random.split(key, rounds + 1)
        codewords = residual[jax.random.choice(start, len(residual), (size,), replace=False)]

        def lloyd(codewords, key):
            codes = nearest(codewords, residual)
            counts = jnp.zeros(size).at[codes].add(1.0)
            sums = jnp.zeros_like(codewords).at[codes].add(residual)
            other = residual[jax.random.randint(key, (size,), 0, len(residual))]
            return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1.0)[:, None], other), None

        codewords, _ = jax.lax.scan(lloyd, codewords, jnp.stack(restart))
        codes = nearest(codewords, residual)
        counts = jnp.zeros(size).at[codes].add(1.0)
        residual = residual - codewords[codes]
        return residual, (codewords, counts, jnp.sum(residual**2) / power)

    _, (embed, counts, left) = jax.lax.scan(book, frames, jax.random.split(key, books))
    counts = jnp.maximum(counts, 1e-2)
    return Codebooks(embed, embed * counts[..., None], counts), left
