"""No logits and no settings can make a step choose a token that does not belong there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import golden_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ualm_jax.generate import slots as state
from ualm_jax.generate import step, structure
from ualm_jax.tokens.vocabulary import EOS, EOT, NUM_SPECIAL

VOCABULARY = golden_model.ARCHITECTURE.vocabulary
COUNT, Q, W = 16, 8, VOCABULARY.stream_size


@jax.jit
def choose(slots, logits):
    return step._choose_here(VOCABULARY, step.EVERYTHING, slots, logits)


@functools.cache
def no_slots():
    return state.empty_slots(golden_model.ARCHITECTURE, "float32", COUNT, 2 * COUNT, 4)._replace(cache=None)


def one_of(rng, *values, shape=(COUNT,)):
    return rng.choice(values, shape)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1.0, 30.0, 1e4, 1e30]))
def test_every_choice_belongs_to_its_stream_and_step(seed, scale):
    rng = np.random.default_rng(seed)
    per_stream = functools.partial(one_of, rng, shape=(COUNT, Q))
    least = rng.integers(1, 20, COUNT)
    steps = rng.integers(0, 30, COUNT)
    decided = (steps > least) & (rng.random(COUNT) < 0.5)
    frames = np.where(decided, rng.integers(least, np.maximum(steps, least + 1)), structure.OPEN)
    most = np.where(decided, frames, np.maximum(least, steps)) + rng.integers(0, 5, COUNT)
    slots = no_slots()
    asked = slots.settings._replace(
        temperature=per_stream(0.0, 1e-38, 0.8, 1e6).astype(np.float32),
        top_k=per_stream(0, 1, 3, 2**31 - 1).astype(np.int32),
        top_p=per_stream(1e-30, 0.3, 1.0).astype(np.float32),
        min_p=per_stream(0.0, 0.2, 1.0).astype(np.float32),
        cfg_scale=per_stream(0.0, 1.0, 3.0, 1e6 / max(scale, 1)).astype(np.float32),
        penalty=one_of(rng, 1.0, 1.5, 1e6).astype(np.float32),
        seed=rng.integers(0, 2**32, COUNT, np.uint32),
        min_frames=least.astype(np.int32),
        max_frames=most.astype(np.int32),
        text=rng.random(COUNT) < 0.4,
        enforce=np.ones(COUNT, bool),
        scored=rng.random(COUNT) < 0.5,
    )
    slots = slots._replace(
        settings=jax.tree.map(jnp.asarray, asked),
        cond=jnp.arange(COUNT),
        uncond=jnp.arange(COUNT) + COUNT * jnp.asarray(one_of(rng, 0, 1)),
        step=jnp.asarray(steps, jnp.int32),
        frames=jnp.asarray(frames, jnp.int32),
        seen=jnp.asarray(rng.random((COUNT, VOCABULARY.text_size)) < 0.3),
    )

    def logits(*shape):
        # Among random ones, whole rows of equal ones, and a token that is far above all others.
        made = rng.normal(size=shape) * scale
        made[rng.random(shape[0]) < 0.2] = 0
        made[rng.random(shape) < 1 / 64] = 3e38 if scale > 1 else 5
        return jnp.asarray(made, jnp.float32)

    text_width = VOCABULARY.audio_start
    made = step._Logits(logits(2 * COUNT, Q, W), logits(2 * COUNT, 2), logits(COUNT, text_width), logits(Q, Q, W))
    sampled = choose(slots, made)
    tokens = np.asarray(sampled.tokens)
    ids = structure.column_ids(VOCABULARY)
    allowed = np.asarray(
        structure.allowed_columns(slots.step, slots.frames, asked.min_frames, asked.max_frames, VOCABULARY)
    )
    for slot in range(COUNT):
        if asked.text[slot]:
            first = tokens[slot, 0]
            assert NUM_SPECIAL <= first < VOCABULARY.audio_start or first in (EOS, EOT)
            assert not tokens[slot, 1:].any()
        else:
            for stream in range(Q):
                assert tokens[slot, stream] in ids[stream][allowed[slot, stream]], (slot, stream)
