"""What is trained moves as if all were trained; what is not keeps its bits, and has no moments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.golden_model import ARCHITECTURE
from helpers.golden_steps import EXECUTION, fresh_state, rows

from ualm_jax.errors import UserError
from ualm_jax.models.ualm import abstract_model
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.averaging import optimizer_of
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.next_token import next_token
from ualm_jax.train.optimizer import LrMultiplier, OptimizerConfig
from ualm_jax.train.step import make_train_step
from ualm_jax.train.trainable import choose, partial

VOCABULARY = ARCHITECTURE.vocabulary
TEXT = slice(VOCABULARY.text_start, VOCABULARY.audio_start)
ALIGNMENT = ("adapter", "embed[audio]", "audio_head")
TEXT_FROZEN = ("*", "!embed[text]", "!text_head[text]")
DECAYED = OptimizerConfig(peak_lr=1e-2, warmup_steps=0, decay_steps=10, weight_decay=0.5)


def one_step(golden, entries, mesh, *, microbatches=1, plain=False):
    """Parameters before and after a step, and the state of the optimiser."""
    with jax.set_mesh(mesh):
        structure, params = abstract_model(ARCHITECTURE, EXECUTION)
        trainable = choose(entries, params, VOCABULARY)
        optimizer = partial(optax.sgd(1.0), trainable) if plain else optimizer_of(DECAYED, trainable, params)
        state = fresh_state(EXECUTION, optimizer)
        before = arrays(state.params)
        state, _ = make_train_step(structure, next_token, optimizer, trainable)(
            state, shard_batch(rows(golden), mesh, microbatches)
        )
    return before, arrays(state.params), state.opt_state


def arrays(params):
    return {".".join(path): np.array(leaf[...]) for path, leaf in nnx.to_flat_state(params)}


@pytest.fixture(scope="module")
def one():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def everything(golden, one):
    return one_step(golden, ("*",), one, plain=True)[1]


@pytest.mark.parametrize("entries", [ALIGNMENT, pytest.param(TEXT_FROZEN, marks=pytest.mark.slow)])
def test_what_is_trained_moves_as_if_all_were_on_any_mesh(golden, everything, entries):
    before, after, _ = one_step(golden, entries, make_mesh(MeshConfig(2, 2, 2)), microbatches=2, plain=True)
    for name, leaf in after.items():
        moved = leaf != before[name]
        np.testing.assert_allclose(leaf[moved], everything[name][moved], rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_alignment_of_modalities_moves_nothing_but_adapter_and_audio_rows(golden, one):
    before, after, opt_state = one_step(golden, ALIGNMENT, one)
    start = VOCABULARY.audio_start
    np.testing.assert_array_equal(after["embed"][:start], before["embed"][:start])
    for name in after.keys() - {"embed", "audio_head", "adapter.kernel", "adapter.bias"}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    trained = after["embed"][start:], after["audio_head"], after["adapter.kernel"], after["adapter.bias"]
    assert (after["embed"][start:] != before["embed"][start:]).all()  # all decay
    moments = [leaf for leaf in jax.tree.leaves(opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * sum(leaf.size for leaf in trained)


def test_text_rows_of_embedding_and_head_stay_as_they_are_while_all_else_moves(golden, one):
    before, after, _ = one_step(golden, TEXT_FROZEN, one)
    for name, text in (("embed", (TEXT,)), ("text_head", (slice(None), TEXT))):
        np.testing.assert_array_equal(after[name][text], before[name][text])
        rest = after[name] != before[name]
        rest[text] = True
        assert rest.all(), name
    for name in after.keys() - {"embed", "text_head", "stream_embed"}:
        assert (after[name] != before[name]).any(), name


@pytest.mark.parametrize(
    "entries, message",
    [
        (("adaptor",), "'adaptor' matches no parameter; the model has adapter, audio_head, decoder"),
        (("embed[sound]",), r"'embed\[sound\]' names rows that embed does not have; it has special and text and audio"),
        (("text_head[audio]",), "text_head does not have; it has special and text"),
        (("decoder[text]",), "it has no rows of tokens"),
        (("embed[",), "is no filter"),
        (("embed", "!embed"), "leaves nothing to train"),
        ((), "leaves nothing to train"),
    ],
)
def test_a_filter_that_does_not_fit_is_one_sentence(entries, message):
    with pytest.raises(UserError, match=message):
        choose(entries, abstract_model(ARCHITECTURE, EXECUTION)[1], VOCABULARY)


def test_learning_rates_are_multiplied_by_path_and_the_last_pattern_counts():
    params = nnx.State({name: nnx.Param(np.ones(3, np.float32)) for name in ("adapter", "embed", "head")})
    grads = jax.tree.map(lambda leaf: 0.1 * leaf, params)
    multipliers = tuple(LrMultiplier(*one) for one in (("*", 0.5), ("adapter", 2.0), ("head", 0.0)))
    moved = {}
    for which in ((), multipliers):
        config = OptimizerConfig(warmup_steps=0, weight_decay=0.5, lr_multipliers=which)
        optimizer = optimizer_of(config, choose(("*",), params, VOCABULARY), params)
        moved[which] = arrays(optimizer.update(grads, optimizer.init(params), params)[0])
    for name, factor in (("adapter", 2.0), ("embed", 0.5), ("head", 0.0)):
        np.testing.assert_allclose(moved[multipliers][name], factor * moved[()][name], rtol=1e-6)
    config = OptimizerConfig(lr_multipliers=(LrMultiplier("decoder", 2.0),))
    with pytest.raises(UserError, match="'decoder' matches nothing that is trained"):
        optimizer_of(config, choose(("*",), params, VOCABULARY), params)


def test_the_average_is_that_of_all_steps_with_weights_that_fade():
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        table = jnp.arange(VOCABULARY.size, dtype=jnp.float32)[:, None]
        params = nnx.State({"embed": nnx.Param(jax.device_put(table, jax.P(None, None)))})
        trainable = choose(("embed[audio]",), params, VOCABULARY)
        config = OptimizerConfig(schedule="constant", warmup_steps=0, peak_lr=1.0, ema_decay=0.75)
        optimizer = optimizer_of(config, trainable, params)
        state, seen = optimizer.init(params), [arrays(params)["embed"]]
        for _ in range(3):
            grads = trainable.take(jax.tree.map(jnp.ones_like, params))
            updates, state = optimizer.update(grads, state, params)
            params = trainable.put(jax.tree.map(jnp.add, trainable.take(params), updates), params)
            seen.append(arrays(params)["embed"])
    expected = 0.75**3 * seen[0] + 0.25 * sum(0.75 ** (3 - step) * seen[step] for step in (1, 2, 3))
    np.testing.assert_allclose(arrays(state.average)["embed"], expected, rtol=1e-6)
    assert (seen[3] != seen[0]).sum() == VOCABULARY.size - VOCABULARY.audio_start
