"""The policy gradient against its definition, written down anew, and the rows that it learns from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ualm_jax.errors import UserError
from ualm_jax.generate.jobs_items import Item
from ualm_jax.models.config import Architecture, DecoderConfig, Execution
from ualm_jax.models.log_probabilities import targets
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.sharding import reshard
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.objectives import numerator
from ualm_jax.train.objectives.policy_gradient import Experience, GrpoConfig, PolicyGradient, advantages
from ualm_jax.train.rollouts import PromptBatches

ARCHITECTURE = Architecture(
    decoder=DecoderConfig(num_layers=1, width=16, num_heads=2, num_kv_heads=1, mlp_dim=32),
    vocabulary=Vocabulary(text_size=16, codebook_size=4, num_codebooks=2),
)
LENGTH = 12


def test_advantages_are_rewards_normalised_in_their_group():
    rewards = np.array([[1.0, 2.0, 3.0, 6.0], [0.3, 0.3, 0.3, 0.3], [np.nan, 1.0, np.nan, 0.0], [np.nan] * 3 + [7.0]])
    found = advantages(rewards)
    np.testing.assert_allclose(found.values[0], np.array([-2, -1, 0, 3]) / (np.sqrt(3.5) + 1e-4), rtol=1e-6)
    np.testing.assert_allclose(found.values[2], np.array([0, 0.5, 0, -0.5]) / (0.5 + 1e-4), rtol=1e-6)
    assert not found.values[[1, 3]].any() and found.equal.tolist() == [False, True, False, True]
    assert found.used.sum(axis=1).tolist() == [4, 0, 2, 0]
    shifted = advantages(5 + 10 * rewards)
    np.testing.assert_allclose(shifted.values, found.values, rtol=1e-3)


@functools.cache
def model() -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(jax.jit(lambda: UALM(ARCHITECTURE, Execution(compute_dtype="float32"), nnx.Rngs(0)))())


def answers() -> Batch:
    """Three answers of different lengths; what was drawn of the first is text, of the others frames of two streams."""
    rng, vocabulary = np.random.default_rng(0), ARCHITECTURE.vocabulary
    tokens = np.zeros((3, LENGTH, 2), np.int32)
    weights, segments = np.zeros((3, LENGTH, 2), np.float32), np.zeros((3, LENGTH), np.int32)
    for row, count in enumerate((6, 9, 12)):
        tokens[row, :count, 0] = rng.integers(vocabulary.text_start, vocabulary.audio_start, count)
        segments[row, :count] = 1
        if row == 0:
            weights[row, 4:count, 0] = 1
        else:
            for stream in range(2):
                start = vocabulary.audio_pad(stream) + 1
                tokens[row, 4 + stream : count, stream] = rng.integers(start, start + 4, count - 4 - stream)
                weights[row, 4 + stream : count, stream] = 0.5
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (3, 1)) * segments
    return Batch(tokens, weights, segments, positions)


def dense_log_probs(params, batch, row) -> tuple:
    """Of the next tokens of one answer alone, unpadded, by a softmax of all logits; and their weights, on the host."""
    net, count = nnx.merge(model()[0], params), int((batch.segment_ids[row] > 0).sum())
    alone = Batch(*(jnp.asarray(x[row : row + 1, :count]) for x in batch[:4]))
    hidden, text, audio, streams = (
        reshard(x, *[None] * x.ndim)
        for x in (net(alone), net.text_head[...], net.audio_head[...], net.stream_embed[...])
    )
    hidden = hidden[0]
    audio = audio.reshape(audio.shape[0], -1)
    found = []
    for stream in range(2):
        if stream == 0:
            logits = hidden @ jnp.concatenate([text, audio], axis=1)
            index = alone.tokens[0, 1:, 0]
        else:
            logits = (hidden + streams[stream]) @ audio
            index = jnp.maximum(alone.tokens[0, 1:, 1] - ARCHITECTURE.vocabulary.audio_start, 0)
        logs = jax.nn.log_softmax(logits[:-1], axis=-1)
        found.append(jnp.take_along_axis(logs, index[:, None], axis=1)[:, 0])
    return jnp.stack(found, axis=-1), batch.loss_weights[row, 1:count]


def gradient(objective, params, experience):
    structure = model()[0]

    def loss(params):
        sums = objective(nnx.merge(structure, params), experience)
        counts = objective.counts(experience)
        return numerator(objective, sums, counts) / counts["policy"], sums

    grads, sums = jax.jit(jax.grad(loss, has_aux=True))(params)
    return nnx.to_pure_dict(grads), jax.tree.map(np.asarray, sums)


def compare(found, wanted):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


ADVANTAGE = np.array([1.5, -0.5, -1.0], np.float32)


@jax.jit
def log_probs(params, batch):
    return targets(nnx.merge(model()[0], params), batch).log_probs


def test_the_first_gradient_is_that_of_reinforce():
    batch, params = answers(), model()[1]
    experience = Experience(jax.tree.map(jnp.asarray, batch), jnp.array(ADVANTAGE), log_probs(params, batch))
    found, sums = gradient(PolicyGradient(GrpoConfig(kl_weight=0.0)), params, experience)

    def reinforce(params):
        total = 0.0
        for row in range(3):
            logs, weights = dense_log_probs(params, batch, row)
            total -= ADVANTAGE[row] * jnp.sum(logs * weights)
        return total / (2 + 5 + 8)  # drawn positions

    compare(found, nnx.to_pure_dict(jax.jit(jax.grad(reinforce))(params)))
    assert np.abs(found["text_head"]).max() > 1e-3
    assert sums["policy"].count == 15 and sums["clipped"].total == 0


def test_clipping_and_divergence_are_their_formulas():
    stream_weights = (2.0, 0.25)
    batch, params = answers(), model()[1]
    rng = np.random.default_rng(1)
    old, reference = (np.asarray(log_probs(params, batch)) + rng.normal(0, 0.5, (3, LENGTH, 2)) for _ in range(2))
    config = GrpoConfig(kl_weight=0.3, clip=0.2, stream_weights=stream_weights)
    old, reference = old.astype(np.float32), reference.astype(np.float32)
    experience = Experience(jax.tree.map(jnp.asarray, batch), jnp.array(ADVANTAGE), *map(jnp.asarray, (old, reference)))
    found, sums = gradient(PolicyGradient(config), params, experience)

    def written_out(params):
        policy, divergence, clipped = 0.0, 0.0, []
        for row in range(3):
            logs, weights = dense_log_probs(params, batch, row)
            weights = weights * np.array(stream_weights)
            for place, stream in np.argwhere(weights > 0):
                ratio = jnp.exp(logs[place, stream] - old[row, place, stream])
                held = jnp.clip(ratio, 0.8, 1.2)
                gain = jnp.minimum(ratio * ADVANTAGE[row], held * ADVANTAGE[row])
                clipped.append(gain < ratio * ADVANTAGE[row])
                d = reference[row, place, stream] - logs[place, stream]
                policy -= weights[place, stream] * gain
                divergence += weights[place, stream] * (jnp.exp(d) - 1 - d)
        return policy / 15 + 0.3 * divergence / 15, jnp.stack(clipped)

    (total, clipped), wanted = jax.jit(jax.value_and_grad(written_out, has_aux=True))(params)
    compare(found, nnx.to_pure_dict(wanted))
    share = float(np.mean(clipped))
    assert 0.1 < share < 0.9
    assert sums["clipped"].value() == pytest.approx(share)
    assert sums["policy"].value() + 0.3 * sums["kl"].value() == pytest.approx(float(total), rel=1e-4)


def test_answers_that_teach_nothing_leave_no_gradient():
    batch, params = answers(), model()[1]
    batch = batch._replace(loss_weights=0 * batch.loss_weights)
    experience = Experience(
        jax.tree.map(jnp.asarray, batch), jnp.zeros(3), log_probs(params, batch), log_probs(params, batch) - 1
    )
    objective = PolicyGradient(GrpoConfig())
    sums = jax.jit(lambda params: objective(nnx.merge(model()[0], params), experience))(params)
    assert sums["policy"].total == sums["kl"].total == 0 and objective.counts(experience)["policy"] == 0


def test_the_prompts_of_a_step_follow_from_its_number():
    items = [Item(f"{index:05}", f"caption {index}") for index in range(7)]
    config = GrpoConfig(prompts="captions.txt", group_size=2)
    batches = PromptBatches(items, config, 6, seed=3)
    asked = [next(batches)[0] for _ in range(7)]
    assert sorted(place for step in asked for place in step.prompts) == sorted(list(range(7)) * 3)
    assert len({seed for step in asked for seed in step.seeds.flat}) == 7 * 6
    other = PromptBatches(items, config, 6, seed=3)
    other.set_state({"step": 4})
    np.testing.assert_array_equal(next(other)[0].prompts, asked[4].prompts)
    np.testing.assert_array_equal(other.asked(4).seeds, asked[4].seeds)
    assert (PromptBatches(items, config, 6, seed=4).asked(0).seeds != asked[0].seeds).any()


@pytest.mark.parametrize(
    "fields, rows, sentence",
    [
        ({"prompts": None}, 8, "grpo.prompts is missing"),
        ({"group_size": 3}, 8, "must be a multiple of grpo.group_size"),
        ({"stream_weights": (1.0,)}, 8, "a weight for each of the model's 2 streams, got 1"),
        ({"group_size": 1}, 8, "grpo.group_size must be at least 2"),
        ({"clip": 1.5}, 8, "grpo.clip must be above 0 and below 1"),
        ({"scorer": "likelihood"}, 8, "would reward a model for what it says anyway"),
    ],
    ids=str,
)
def test_a_group_of_settings_that_can_not_be_is_one_sentence(fields, rows, sentence):
    with pytest.raises(UserError, match=sentence):
        GrpoConfig(**{"prompts": "captions.txt", "group_size": 4} | fields).check(2, rows)
