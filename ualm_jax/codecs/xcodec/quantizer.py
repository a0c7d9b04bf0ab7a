"""The residual quantiser while it learns: straight-through gradients, codebooks as moving averages.

Codebooks follow van den Oord et al. 2017 ("Neural Discrete Representation Learning", appendix A.1), their residual
arrangement, dropout and the revival of dead codes Zeghidour et al. 2021 ("SoundStream"). Which codeword is chosen is
decided by `rvq.nearest`, as in a codec in use. Where codes are factorised (`rvq`), codewords are averages of the
directions that the projections make of the vectors, and the projections learn by gradients.

Frames count by the inverse of their energy (`weights`): the energies of sound spread over four decades, and codewords
at the plain means of what chose them would serve the loud frames alone; soft sounds would then decode to silence.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ualm_jax.codecs.xcodec.rvq import PRECISION, Projections, nearest, normalized, project_in, project_out

SMOOTHING = 1e-5  # of a cluster's size, so that an empty one divides by something
SOFTEST = 0.01  # of the mean energy: softer frames count no more than those
BEYOND = 16.0  # of a typical length; see `_principal`


class Codebooks(NamedTuple):
    """Codewords, and the moving averages they are the quotient of: sums of vectors by code, and of their weights.
    use: moving average of how often a batch chooses each code.
    """

    embed: Float[Array, "Q V d"]
    embed_sum: Float[Array, "Q V d"]
    cluster_size: Float[Array, "Q V"]
    use: Float[Array, "Q V"]


class Quantized(NamedTuple):
    """vectors: sums of codewords, through which gradients pass to what was quantised. commitment: weighted mean squared
    distance of what each codebook in use was given to the codeword it chose; where codes are factorised, the mean
    square of the whole distance of their directions. counts: how often each code was chosen; sizes, sums: weights of
    what chose it, and their weighted sum; sample: vectors that each codebook was given, for the revival of dead codes.
    """

    vectors: Float[Array, "B T D"]
    codes: Int[Array, "B T Q"]
    commitment: Float[Array, ""]
    counts: Float[Array, "Q V"]
    sizes: Float[Array, "Q V"]
    sums: Float[Array, "Q V d"]
    sample: Float[Array, "Q V d"]


def quantize_learning(
    embed: Float[Array, "Q V d"],
    x: Float[Array, "B T D"],
    layers: Int[Array, " B"],
    key: Array,
    axes: tuple[str, ...] = (),
    projections: Projections | None = None,
) -> Quantized:
    """Quantises each row of the batch with its first `layers` codebooks; the others neither add nor learn.

    Gradients of the vectors returned are those of `x` as if nothing had been quantised; with projections they are those
    of what passes through the projections, as if the codewords were what they stand for.

    axes: of the mesh that rows are split over, inside `jax.shard_map`. The codes, commitment and vectors returned are
    of this device's rows, everything else is of all rows.
    """
    batch, frames, width = x.shape
    books, size, numbers = embed.shape
    flat = x.reshape(-1, width)
    used = jnp.repeat(layers, frames)
    energy = jax.lax.stop_gradient(jnp.mean(flat**2, axis=1))
    weight = weights(energy, _total(jnp.mean(energy), axes) / _devices(axes))[:, None]

    def stage(residual, given):
        book, codewords, projection, key = given
        low, codewords = project_in(residual, projection), normalized(codewords, projection)
        codes = nearest(codewords, low)
        active = (book < used).astype(x.dtype)[:, None]
        seen = jax.lax.stop_gradient(low)
        scale = weight if projection is None else numbers  # directions: the square of the whole distance
        commitment = jnp.sum(active * scale * (low - codewords[codes]) ** 2)
        codeword = codewords[codes] if projection is None else low + (codewords[codes] - seen)
        added = project_out(codeword, projection) * active
        chose = jax.nn.one_hot(codes, size, dtype=x.dtype) * active
        sums = jnp.dot(chose.T, weight * seen, precision=jax.lax.Precision.HIGHEST)
        learnt = _total((jnp.sum(chose, axis=0), jnp.sum(weight * chose, axis=0), sums), axes)
        picked = _rows(seen, jax.random.randint(key, (size,), 0, len(seen) * _devices(axes)), axes)
        return residual - added, (added, codes, commitment, *learnt, picked)

    given = (jnp.arange(books), jax.lax.stop_gradient(embed), projections, jax.random.split(key, books))
    _, (added, codes, commitment, counts, sizes, sums, sample) = jax.lax.scan(stage, flat, given)
    total = jnp.sum(added, axis=0).reshape(x.shape)
    return Quantized(
        vectors=x + jax.lax.stop_gradient(total - x) if projections is None else total,
        codes=jnp.moveaxis(codes, 0, -1).reshape(batch, frames, books),
        # By the mean count of all devices, so that the mean over devices is the mean over all vectors.
        commitment=jnp.sum(commitment) * _devices(axes) / (_total(jnp.sum(used), axes) * numbers),
        counts=counts,
        sizes=sizes,
        sums=sums,
        sample=sample,
    )


def weights(energy: Float[Array, " M"], mean: Float[Array, ""]) -> Float[Array, " M"]:
    """What each frame counts: 1 at the mean energy, more where it is softer. energy: mean square of its vector."""
    return (1 + SOFTEST) / (energy / jnp.maximum(mean, 1e-12) + SOFTEST)


def _total(x: Any, axes: tuple[str, ...]) -> Any:
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
    use = decay * codebooks.use + (1 - decay) * found.counts
    size = decay * codebooks.cluster_size + (1 - decay) * found.sizes
    total = decay * codebooks.embed_sum + (1 - decay) * found.sums
    mean_use, mean_size = (jnp.mean(each, axis=1, keepdims=True) for each in (use, size))
    dead = use < dead_below * mean_use
    use, size = jnp.where(dead, mean_use, use), jnp.where(dead, mean_size, size)
    total = jnp.where(dead[..., None], mean_size[..., None] * found.sample, total)
    return Codebooks(total / (size + SMOOTHING)[..., None], total, size, use)


def kmeans(
    frames: Float[Array, "M D"], books: int, size: int, rounds: int, key: Array, codebook_dim: int | None = None
) -> tuple[Codebooks, Projections | None, Float[Array, " Q"]]:
    """Codebooks by Lloyd's algorithm, each on what the earlier ones left; the projections of factorised ones, of
    `codebook_dim` numbers; and the share of each frame's energy that is left after each book, in the weighted mean
    over frames.
    """
    energy = jnp.mean(frames**2, axis=1)
    weight = weights(energy, jnp.mean(energy))

    def book(residual, key):
        start, *restart = jax.random.split(key, rounds + 1)
        projection = None if codebook_dim is None else _principal(residual, weight, codebook_dim)
        low = project_in(residual, projection)
        likely = weight * jnp.sum(residual**2, axis=1)
        first = jax.random.choice(start, len(residual), (size,), replace=False, p=likely / jnp.sum(likely))

        def clusters(codewords):
            codes = nearest(normalized(codewords, projection), low)
            sizes = jnp.zeros(size).at[codes].add(weight)
            sums = jnp.zeros_like(codewords).at[codes].add(weight[:, None] * low)
            return codes, sizes, sums

        def lloyd(codewords, key):
            _, sizes, sums = clusters(codewords)
            other = low[jax.random.randint(key, (size,), 0, len(residual))]
            return jnp.where(sizes[:, None] > 0, sums / jnp.maximum(sizes, 1e-12)[:, None], other), None

        codewords, _ = jax.lax.scan(lloyd, low[first], jnp.stack(restart))
        codes, sizes, _ = clusters(codewords)
        use = jnp.zeros(size).at[codes].add(1.0)
        residual = residual - project_out(normalized(codewords, projection)[codes], projection)
        left = jnp.sum(weight * jnp.mean(residual**2, axis=1)) / jnp.sum(weight * energy)
        return residual, (codewords, projection, sizes, use, left)

    _, (embed, projections, sizes, use, left) = jax.lax.scan(book, frames, jax.random.split(key, books))
    sizes = jnp.maximum(sizes, 1e-2)
    return Codebooks(embed, embed * sizes[..., None], sizes, use), projections, left


def _principal(x: Float[Array, "M D"], weight: Float[Array, " M"], dim: int) -> Projections:
    """To the first dim - 1 principal components and a constant, and back from the components.

    Directions alone know nothing of loudness. Beside a constant far above what vectors are long they tell long ones
    from short ones, and near the constant's own direction they are as good as the components: on vectors of SoundScript
    eight codebooks of 128 and 8 numbers left 19 % of the energy; of no constant, with codewords of mean length, 51 %.
    """
    _, axes = jnp.linalg.eigh(jnp.dot(x.T, weight[:, None] * x, precision=PRECISION))
    axes = axes[:, ::-1][:, : dim - 1]
    low = jnp.dot(x, axes, precision=PRECISION)
    constant = BEYOND * jnp.sqrt(jnp.sum(weight * jnp.sum(low**2, axis=1)) / jnp.sum(weight))
    kernel = jnp.pad(axes, ((0, 0), (0, 1)))
    return {
        "in_proj": {"kernel": kernel, "bias": jnp.zeros(dim).at[-1].set(constant)},
        "out_proj": {"kernel": constant * kernel.T, "bias": jnp.zeros(x.shape[1])},
    }
