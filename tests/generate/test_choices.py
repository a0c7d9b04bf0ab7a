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
from ualm_jax.generate.prompts import place
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.vocabulary import EOS, EOT, NUM_SPECIAL

VOCABULARY = golden_model.ARCHITECTURE.vocabulary
COUNT, Q, W = 16, 8, VOCABULARY.stream_size


@jax.jit
def choose(slots, logits):
    specs = step.Sampled(spec("batch", None), spec("batch", None), spec("batch"))
    here = functools.partial(step._choose_here, VOCABULARY, step.EVERYTHING)
    return state.on_each_device(here, specs, slots, logits)


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
    frames = np.where(decided, rng.integers(np.maximum(least, steps - Q + 1), steps.clip(least + 1)), structure.OPEN)
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
        settings=asked,
        cond=np.arange(COUNT),
        uncond=np.arange(COUNT) + COUNT * one_of(rng, 0, 1),
        step=steps.astype(np.int32),
        frames=frames.astype(np.int32),
        seen=rng.random((COUNT, VOCABULARY.text_size)) < 0.3,
    )

    def logits(*shape):
        # Among random ones, whole rows of equal ones, and a token that is far above all others.
        made = rng.normal(size=shape) * scale
        made[rng.random(shape[0]) < 0.2] = 0
        made[rng.random(shape) < 1 / 64] = 1000 * scale + 5
        return made.astype(np.float32)

    text_width = VOCABULARY.audio_start
    made = place((logits(2 * COUNT, Q, W), logits(2 * COUNT, 2), logits(COUNT, text_width)))
    sampled = choose(place(slots), step._Logits(*made, jnp.asarray(logits(Q, Q, W))))
    tokens = np.asarray(sampled.tokens)
    for slot in range(COUNT):
        if asked.text[slot]:
            first = tokens[slot, 0]
            assert NUM_SPECIAL <= first < VOCABULARY.audio_start or first in (EOS, EOT)
            assert not tokens[slot, 1:].any()
        else:
            where = int(steps[slot]), int(frames[slot]), int(least[slot]), int(most[slot])
            for stream in range(Q):
                assert kind(int(tokens[slot, stream]), stream) in kinds(stream, *where), (slot, stream, where)


def kind(token: int, stream: int) -> str:
    start = VOCABULARY.audio_pad(stream)
    if token in (EOS, EOT):
        return "end"
    if start < token < start + W:
        return "code"
    return {0: "nothing", start: "pad"}.get(token, "foreign")


def kinds(stream: int, step: int, frames: int, least: int, most: int) -> set[str]:
    """What the delay structure has room for: audio of T frames, in which stream q lags q steps behind."""
    if step == frames + Q - 1:
        return {"end"} if stream == 0 else {"nothing"}
    code = {"code"} if 0 <= step - stream < min(frames, most) else set()
    pad = step >= least if stream == 0 else not code
    return code | {"pad"} if pad else code
