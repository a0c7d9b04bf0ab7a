"""Preference learning against its definitions, written down anew, and what must not change it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import golden_model
from helpers.pairs import pair, plain_sums, rows_of_pairs

from ualm_jax.errors import UserError
from ualm_jax.models.log_probabilities import sequences, targets
from ualm_jax.models.ualm import abstract_model
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import reshard
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.preference import Preference
from ualm_jax.train.objectives.preference_losses import Answer, PreferenceConfig, preference_loss
from ualm_jax.train.step import make_train_step, state_from

PACKED = [[1, 2], [3, 4, 5], [6], [7, 8]] + [[]] * 4
ALONE = [[1], [2], [3], [4], [5], [6], [7], [8]]


def config(**fields) -> PreferenceConfig:
    return PreferenceConfig(**fields)


ONE = MeshConfig(1, 1, 1)


@functools.cache
def program(objective, mesh):
    """Sums, and gradients of what is minimised, compiled once for batches of a shape."""

    structure = abstract_model(golden_model.ARCHITECTURE, golden_model.EXECUTION)[0]

    def loss(params, batch):
        sums = objective(nnx.merge(structure, params), batch)
        return sum(weight * sums[name].value() for name, weight in objective.weights.items()), sums

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def run(golden_dir, rows, objective, shape=ONE, reference=None):
    mesh = make_mesh(shape, jax.devices()[: shape.data * shape.fsdp * shape.tensor])
    with jax.set_mesh(mesh):
        batch = rows_of_pairs(rows, 176, 3)
        batch = batch if reference is None else batch._replace(reference=reference)
        params = nnx.state(golden_model.load(golden_dir))
        (_, sums), grads = program(objective, mesh)(params, shard_batch(batch, mesh))
        return jax.tree.map(np.asarray, (sums, nnx.to_pure_dict(grads)))


@pytest.fixture(scope="module")
def objective():
    return Preference(config(ce_weight=0.5, kl_weight=0.2, stream_weights=(1.0,) * 4 + (0.5,) * 4))


@pytest.fixture(scope="module")
def packed(golden_dir, objective):
    return run(golden_dir, PACKED, objective)


def assert_same(found, expected):
    for name, value in expected[0].items():
        if name not in ("attended", "tokens"):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found[0][name], value)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), found[1], expected[1])


def test_values_and_gradients_are_those_of_the_long_way_round(golden_dir, packed):
    """DPO with cross-entropy and divergence, each conversation alone, all logits at once."""
    structure, params = nnx.split(golden_model.load(golden_dir))
    scale = jnp.array([1.0] * 4 + [0.5] * 4)
    reference = rows_of_pairs(ALONE, 176, 1).reference[:, 0]

    conversations = [messages for seed in range(1, 9) for messages in pair(seed)]

    def loss(params):
        sums, counts = plain_sums(nnx.merge(structure, params), conversations)
        ratios = jnp.sum((sums.reshape(8, 2, 8) - reference) * scale, axis=-1)
        positions = counts.reshape(8, 2, 8)[..., 0]
        drift = jnp.mean(jnp.exp(ratios / positions) - 1 - ratios / positions)
        ce = -jnp.sum(sums[::2]) / positions[:, 0].sum()
        preference = jnp.mean(jnp.log1p(jnp.exp(-0.1 * (ratios[:, 0] - ratios[:, 1]))))
        return preference + 0.5 * ce + 0.2 * drift, (preference, ce, drift)

    (_, (preference, ce, kl)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    sums, found = packed
    np.testing.assert_allclose(sums["preference"].value(), preference, rtol=1e-5)
    np.testing.assert_allclose(sums["ce"].value(), ce, rtol=1e-5)
    np.testing.assert_allclose(sums["kl"].value(), kl, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), found, nnx.to_pure_dict(grads))


def test_packed_equals_unpacked(golden_dir, packed, objective):
    assert_same(run(golden_dir, ALONE, objective), packed)


def test_eight_devices_find_what_one_does(golden_dir, packed, objective):
    assert_same(run(golden_dir, PACKED, objective, MeshConfig(2, 2, 2)), packed)


def test_of_rows_without_pairs_nothing_is_learnt(golden_dir, objective):
    sums, grads = run(golden_dir, [[]] * 8, objective)
    assert sums["pairs"] == 0 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(sums))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads))


def test_it_begins_with_log_2_and_no_margin_to_the_last_bit(golden_dir, objective):
    """Though the scorer, which takes no gradient, is another program."""
    structure, params = nnx.split(golden_model.load(golden_dir))
    batch = jax.tree.map(jnp.asarray, rows_of_pairs(PACKED, 176, 3))
    score = jax.jit(lambda p, b: sequences(b, targets(nnx.merge(structure, p), b), 6).total)
    sums, _ = run(golden_dir, PACKED, objective, reference=np.asarray(score(params, batch)).reshape(8, 3, 2, 8))
    assert sums["preference"].value() == np.float32(np.log(2))
    for name in ("margin", "reward/chosen", "reward/rejected", "drift", "kl", "kl/stream"):
        assert (sums[name].total == 0).all(), name


def test_four_microbatches_equal_one_big_batch(golden_dir, objective, packed):
    """Pairs are many in some and none in others: every mean is divided by its count of the whole step."""
    optimizer, structure = optax.sgd(1.0), abstract_model(golden_model.ARCHITECTURE, golden_model.EXECUTION)[0]
    state = state_from(nnx.state(golden_model.load(golden_dir)), optimizer)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(state.params))
    batch = shard_batch(rows_of_pairs(PACKED, 176, 3), jax.sharding.get_mesh(), 4)
    state, metrics = make_train_step(structure, objective, optimizer)(state, batch)
    for name in objective.weights:
        np.testing.assert_allclose(metrics[name], packed[0][name].value(), rtol=2e-5)
    after = nnx.to_pure_dict(state.params)
    jax.tree.map(lambda a, b, g: np.testing.assert_allclose(a - b, g, rtol=1e-3, atol=1e-4), before, after, packed[1])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def odds(log_prob):
    return np.log(np.exp(log_prob) / (1 - np.exp(log_prob)))


# c, r: log pi of chosen and rejected; C, R: the reference's; n, m: positions.
CLOSED_FORMS = {
    ("sigmoid",): lambda c, r, C, R, n, m: softplus(-0.3 * ((c - C) - (r - R))),
    ("sigmoid", "smoothed"): lambda c, r, C, R, n, m: (
        0.8 * softplus(-0.3 * ((c - C) - (r - R))) + 0.2 * softplus(0.3 * ((c - C) - (r - R)))
    ),
    ("sigmoid", "normalised"): lambda c, r, C, R, n, m: softplus(-0.3 * ((c - C) / n - (r - R) / m)),
    ("ipo",): lambda c, r, C, R, n, m: ((c - r) - (C - R) - 1 / 0.6) ** 2,
    ("ipo", "normalised"): lambda c, r, C, R, n, m: ((c / n - r / m) - (C / n - R / m) - 1 / 0.6) ** 2,
    ("hinge",): lambda c, r, C, R, n, m: np.maximum(0, 1 - 0.3 * ((c - C) - (r - R))),
    ("apo_zero",): lambda c, r, C, R, n, m: 1 - sigmoid(0.3 * (c - C)) + sigmoid(0.3 * (r - R)),
    ("simpo",): lambda c, r, C, R, n, m: softplus(-(0.3 * (c / n - r / m) - 0.7)),
    ("simpo", "smoothed"): lambda c, r, C, R, n, m: (
        0.8 * softplus(-(0.3 * (c / n - r / m) - 0.7)) + 0.2 * softplus(0.3 * (c / n - r / m) - 0.7)
    ),
    ("orpo",): lambda c, r, C, R, n, m: 0.3 * softplus(-(odds(c / n) - odds(r / m))),
}
OPTIONS = {"smoothed": {"label_smoothing": 0.2}, "normalised": {"length_normalised": True}}


@pytest.mark.parametrize("name", CLOSED_FORMS, ids=" ".join)
def test_a_loss_is_its_closed_form(name):
    rng = np.random.default_rng(0)
    c, r = -rng.uniform(0.1, 60, (2, 200))
    C, R = np.array([c, r]) + rng.normal(0, 8, (2, 200))
    n, m = rng.integers(1, 40, (2, 200))
    loss, *options = name
    fields = {"loss": loss, "beta": 0.3, "margin": 0.7}
    for option in options:
        fields |= OPTIONS[option]
    chosen, rejected = (
        Answer(*(jnp.asarray(x, jnp.float32) for x in (policy, policy - reference, count)))
        for policy, reference, count in ((c, C, n), (r, R, m))
    )
    found = preference_loss(config(**fields), chosen, rejected)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, CLOSED_FORMS[name](c, r, C, R, n, m), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge", "apo_zero", "simpo", "orpo"])
def test_an_empty_place_gives_no_loss_nan(loss):
    def of_empty(log_prob):
        empty = Answer(log_prob, jnp.zeros(()), jnp.ones(()))
        return preference_loss(config(loss=loss), empty, empty)

    assert all(np.isfinite(x) for x in jax.value_and_grad(of_empty)(jnp.float32(-1.0)))


def test_what_is_certain_has_finite_odds_and_slopes():
    chosen = Answer(jnp.zeros(1), jnp.zeros(1), jnp.ones(1))
    rejected = Answer(jnp.full(1, -500.0), jnp.zeros(1), jnp.ones(1))
    for one, other in ((chosen, rejected), (rejected, chosen)):

        def loss(p, one=one, other=other):
            return preference_loss(config(loss="orpo"), one._replace(log_prob=p), other)[0]

        value, slope = jax.value_and_grad(loss)(one.log_prob)
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_no_array_of_positions_times_vocabulary_is_made(golden_dir, objective):
    structure, params = nnx.split(golden_model.load(golden_dir))
    batch = jax.tree.map(jnp.asarray, rows_of_pairs(PACKED, 176, 3))
    vocabulary = golden_model.ARCHITECTURE.vocabulary

    def largest(loss):
        """Of the arrays with an axis of text, or of the whole vocabulary."""
        text = jax.jit(jax.grad(loss)).lower(params).as_text()
        shapes = [tuple(map(int, found.split("x")[:-1])) for found in re.findall(r"tensor<((?:\d+x)+)[fbi]", text)]
        columns = (vocabulary.audio_start, vocabulary.size)
        return max(int(np.prod(shape)) for shape in shapes if any(size in shape for size in columns))

    def naive(params):
        model = nnx.merge(structure, params)
        logits = model(batch) @ reshard(model.text_head[...], None, None)
        return jnp.sum(jax.nn.log_softmax(logits)[..., 0])

    limit = batch.segment_ids.size * vocabulary.audio_start
    assert largest(naive) >= limit
    assert largest(lambda p: objective(nnx.merge(structure, p), batch)["preference"].total) < limit


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"loss": "hinge", "label_smoothing": 0.1}, "only sigmoid and simpo have one"),
        ({"loss": "orpo", "length_normalised": True}, "divides by positions by itself"),
        ({"loss": "dpo"}, "must be one of sigmoid, ipo"),
        ({"beta": 0.0}, "preference.beta must be above 0"),
        ({"stream_weights": (1.0, -1.0)}, "stream_weights must be at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(fields, reason):
    with pytest.raises(UserError, match=reason):
        config(**fields)
