"""The residual quantiser while it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ualm_jax.codecs.xcodec.quantizer import Codebooks, kmeans, moved, quantize_learning
from ualm_jax.codecs.xcodec.rvq import dequantize, quantize
from ualm_jax.parallel.mesh import MeshConfig, make_mesh

BOOKS, SIZE, WIDTH, ROWS, FRAMES = 3, 8, 5, 8, 6
KEY = jax.random.key(0)
# Compiled whole, and once for all that ask for these shapes.
learn, chosen, summed = (jax.jit(each) for each in (quantize_learning, quantize, dequantize))


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    embed = rng.standard_normal((BOOKS, SIZE, WIDTH)).astype(np.float32) * np.float32([1, 0.5, 0.25])[:, None, None]
    return jnp.asarray(embed), jnp.asarray(rng.standard_normal((ROWS, FRAMES, WIDTH)), jnp.float32)


def counted(x) -> np.ndarray:
    """What each frame counts: the inverse of its energy."""
    energy = np.mean(np.square(np.asarray(x, np.float64)), axis=-1)
    return 1.01 / (energy / energy.mean() + 0.01)


def test_the_codes_are_those_of_a_codec_in_use(given):
    embed, x = given
    found = learn(embed, x, jnp.full(ROWS, BOOKS), KEY)
    np.testing.assert_array_equal(found.codes, chosen(embed, x))
    np.testing.assert_allclose(found.vectors, summed(embed, found.codes), atol=1e-6)


def test_gradients_pass_straight_through_to_the_vectors_and_not_to_the_codebooks(given):
    embed, x = given
    weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)

    def total(embed, x):
        return jnp.sum(weights * learn(embed, x, jnp.full(ROWS, BOOKS), KEY).vectors)

    to_embed, to_x = jax.jit(jax.grad(total, (0, 1)))(embed, x)
    np.testing.assert_array_equal(to_x, weights)
    np.testing.assert_array_equal(to_embed, 0)


def test_commitment_pulls_each_vector_towards_the_codewords_it_chose(given):
    embed, x = given
    found = learn(embed, x, jnp.full(ROWS, BOOKS), KEY)
    left, squares = np.asarray(x), 0.0
    for q in range(BOOKS):
        left = left - np.asarray(embed)[q][np.asarray(found.codes)[:, :, q]]
        squares += np.sum(counted(x)[..., None] * left**2)
    assert found.commitment == pytest.approx(squares / (ROWS * FRAMES * BOOKS * WIDTH), rel=1e-5)
    pull = jax.jit(jax.grad(lambda x: learn(embed, x, jnp.full(ROWS, BOOKS), KEY).commitment))(x)
    nearer = learn(embed, x - 0.1 * pull, jnp.full(ROWS, BOOKS), KEY)
    assert nearer.commitment < found.commitment


def test_a_row_that_uses_few_codebooks_teaches_the_others_nothing(given):
    embed, x = given
    layers = jnp.array([1, 2, 3, 1, 2, 3, 1, 2])
    found = learn(embed, x, layers, KEY)
    for row, number in enumerate(layers):
        want = summed(embed[:number], found.codes[row : row + 1, :, :number])[0]
        np.testing.assert_allclose(found.vectors[row], want, atol=1e-6)
    np.testing.assert_array_equal(
        found.counts.sum(1), FRAMES * np.array([np.sum(np.asarray(layers) > q) for q in range(BOOKS)])
    )
    np.testing.assert_allclose(
        found.sums[0].sum(0), (counted(x)[..., None] * np.asarray(x)).sum((0, 1)), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(found.sizes[0].sum(), counted(x).sum(), rtol=1e-4)


def test_codebooks_move_to_the_weighted_mean_of_what_chose_them(given):
    embed, x = given
    found = learn(embed, x, jnp.full(ROWS, BOOKS), KEY)
    nearest, flat, weight = (
        np.asarray(found.codes)[:, :, 0].ravel(),
        np.asarray(x).reshape(-1, WIDTH),
        counted(x).ravel(),
    )
    none = jnp.zeros((BOOKS, SIZE))
    after = moved(Codebooks(embed, embed * 0.0, none, none), found, decay=0.0, dead_below=0.0)
    for code in np.unique(nearest):
        mean = np.average(flat[nearest == code], axis=0, weights=weight[nearest == code])
        np.testing.assert_allclose(after.embed[0, code], mean, rtol=1e-3, atol=1e-5)
    slow = moved(Codebooks(embed, embed * 4.0, none + 4.0, none), found, decay=0.9, dead_below=0.0)
    want = (0.9 * 4 * embed + 0.1 * found.sums) / (0.9 * 4 + 0.1 * found.sizes)[..., None]
    np.testing.assert_allclose(slow.embed, want, rtol=1e-4, atol=1e-5)


def test_a_dead_code_comes_to_life_where_a_vector_is(given):
    embed, x = given
    far, ones = embed.at[0, 3].set(100.0), jnp.ones((BOOKS, SIZE))
    books = Codebooks(far, far, ones, ones.at[0, 3].set(1e-4))
    after = moved(books, learn(far, x, jnp.full(ROWS, BOOKS), KEY), decay=0.99, dead_below=0.1)
    distances = np.linalg.norm(np.asarray(x).reshape(-1, WIDTH) - np.asarray(after.embed[0, 3]), axis=1)
    assert distances.min() < 1e-3
    assert after.use[0, 3] == pytest.approx(float(after.use[0].mean()), rel=0.2)


def test_soft_frames_find_codewords_as_near_to_them_as_loud_ones_do():
    rng = np.random.default_rng(3)
    scale = np.repeat([1.0, 0.1], 3000)  # energies a hundred times apart
    frames = (scale[:, None] * rng.standard_normal((6000, WIDTH))).astype(np.float32)
    books, _, _ = kmeans(jnp.asarray(frames), BOOKS, 32, 20, KEY)
    left = frames - np.asarray(summed(books.embed, chosen(books.embed, jnp.asarray(frames)[None])))[0]
    share = (left**2).reshape(2, -1).sum(1) / (frames**2).reshape(2, -1).sum(1)
    assert share[1] < 3 * share[0]  # it would be a hundred times


def test_kmeans_finds_clusters_and_each_book_leaves_less():
    rng = np.random.default_rng(2)
    centres = 10 * rng.standard_normal((SIZE, WIDTH))
    frames = (centres[rng.integers(SIZE, size=4000)] + rng.standard_normal((4000, WIDTH))).astype(np.float32)
    books, _, left = kmeans(jnp.asarray(frames), BOOKS, 4 * SIZE, 20, KEY)
    nearest = np.linalg.norm(centres[:, None] - np.asarray(books.embed[0])[None], axis=2).min(1)
    assert nearest.max() < 2
    assert left[0] < 0.02 and np.all(np.diff(left) < 0)


def test_eight_devices_learn_what_one_learns(given):
    embed, x = given
    layers = jnp.array([1, 2, 3, 3, 2, 3, 1, 2])
    alone = learn(embed, x, layers, KEY)
    with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2), jax.devices()[:8])):
        spread = jax.jit(
            jax.shard_map(
                lambda embed, x, layers: _learnt(quantize_learning(embed, x, layers, KEY, ("data", "fsdp"))),
                in_specs=(PartitionSpec(), PartitionSpec(("data", "fsdp")), PartitionSpec(("data", "fsdp"))),
                out_specs=PartitionSpec(),
                check_vma=False,
            )
        )(np.asarray(embed), *(jax.device_put(np.asarray(a), PartitionSpec(("data", "fsdp"))) for a in (x, layers)))
        spread = jax.device_get(spread)
    for mine, theirs in zip(alone[2:], spread, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-5, atol=1e-5)


def _learnt(found):
    """What all devices know of a batch, and the commitment, which is to be averaged over them."""
    return jax.lax.pmean(found.commitment, ("data", "fsdp")), *found[3:]
