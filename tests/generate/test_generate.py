"""What a generated segment depends on, and what it must not depend on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import compilations, golden_model
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ualm_jax.errors import UserError
from ualm_jax.generate import SamplingParams, decode, generate, structure
from ualm_jax.generate.prompts import batch_prompts, bucket, place
from ualm_jax.generate.request import Request
from ualm_jax.generate.weights import make_weights
from ualm_jax.models.int8 import round_layers
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.delay import delay
from ualm_jax.tokens.layout import build_prompt, drop_condition
from ualm_jax.tokens.types import Batch, Message, Modality, Role
from ualm_jax.tokens.vocabulary import AUDIO, EOS, EOT, SPECIAL_TOKENS, SPEECH

VOCABULARY = golden_model.ARCHITECTURE.vocabulary
SHORT = SamplingParams(min_frames=4, max_frames=12, max_tokens=12)


def tokens_of(segments):
    return [segment.tokens.tolist() for segment in segments]


@pytest.fixture(scope="module")
def together(model, prompts):
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        return generate(model, prompts, SHORT)


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(model, prompts, together):
    assert tokens_of(generate(model, prompts, SHORT)) == tokens_of(together)
    other = generate(model, prompts, dataclasses.replace(SHORT, seed=100))
    assert all(a != b for a, b in zip(tokens_of(other), tokens_of(together), strict=True))


def test_a_segment_depends_neither_on_its_batch_nor_on_its_place_in_it(model, prompts, together):
    order = [2, 0, 3, 1]
    params = [dataclasses.replace(SHORT, seed=index) for index in order]
    shuffled = generate(model, [prompts[index] for index in order], params)
    assert tokens_of(shuffled) == [together[index].tokens.tolist() for index in order]
    (alone,) = generate(model, [prompts[1]], dataclasses.replace(SHORT, seed=1))
    assert alone.tokens.tolist() == together[1].tokens.tolist()


def test_more_padding_and_a_longer_loop_change_nothing(model, prompts, together):
    words = np.arange(100)
    long = build_prompt([Message(Role.USER, Modality.TEXT, words)], VOCABULARY)
    params = [dataclasses.replace(SHORT, seed=index) for index in range(3)]
    params.append(dataclasses.replace(SHORT, max_frames=80))
    segments = generate(model, [*prompts[:3], long], params)
    assert tokens_of(segments)[:3] == tokens_of(together)[:3]


def test_settings_prompts_and_seeds_compile_nothing(model, prompts, together):
    settings = dict(temperature=(1.0,) * 4 + (0.0,) * 4, top_k=3, cfg_scale=2.0, max_frames=7, seed=9)
    with compilations.counted() as compiled:
        generate(model, prompts[::-1], SamplingParams(**settings), modality="speech")
    assert not compiled
    with compilations.counted() as compiled:
        jax.jit(lambda x: x * 7 + 1)(jnp.ones(3))
    assert compiled, "what is counted is there to be counted"


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(sharpness=1, temperature=1.2e-38, top_k=0, scale=4.0, least=1, extra=0, seed=0)
@given(
    sharpness=st.floats(0.1, 50),
    temperature=st.floats(0, 5),
    top_k=st.integers(0, 40),
    scale=st.floats(1.5, 10),
    least=st.integers(1, 20),
    extra=st.integers(0, 20),
    seed=st.integers(0, 2**31),
)
def test_every_model_and_setting_gives_whole_audio_within_its_bounds(  # noqa: PLR0913  what hypothesis draws
    model, prompts, sharpness, temperature, top_k, scale, least, extra, seed
):
    scaled = jax.tree.map(lambda x: x, model)
    scaled.audio_head = model.audio_head * sharpness
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        cfg_scale=scale,
        min_frames=least,
        max_frames=least + extra,
        seed=seed,
    )
    for segment in generate(scaled, prompts, params):
        assert least <= len(segment.tokens) <= least + extra
        assert segment.end in ("eos", "eot")


def test_equal_bounds_set_every_prompts_duration_exactly(model, prompts):
    lengths = [1, 5, 12, 20]
    params = [SamplingParams(min_frames=length, max_frames=length, seed=7) for length in lengths]
    assert [len(segment.tokens) for segment in generate(model, prompts, params)] == lengths


def test_top_1_is_greedy(model, prompts):
    top_1 = dataclasses.replace(SHORT, top_k=1, temperature=2.0)
    greedy = dataclasses.replace(SHORT, temperature=0.0)
    assert tokens_of(generate(model, prompts, top_1)) == tokens_of(generate(model, prompts, greedy))


def test_guidance_of_scale_1_is_no_guidance(model, prompts):
    """A row of scale 1 beside guided ones, and a call in which nothing is guided."""
    scales = [1.0, 3.0, 1.0, 3.0]
    params = [dataclasses.replace(SHORT, cfg_scale=scale, seed=5) for scale in scales]
    mixed = tokens_of(generate(model, prompts, params))
    plain = tokens_of(generate(model, prompts, [dataclasses.replace(p, cfg_scale=1.0) for p in params]))
    assert [a == b for a, b in zip(mixed, plain, strict=True)] == [True, False, True, False]


@jax.jit
def hidden_states(model, batch):
    return model(batch)


def stream_logits(model, tokens):
    """[T, S, C] of one sequence, read at once; each stream with its own columns."""
    hidden = np.asarray(hidden_states(model, whole(tokens)))[0]
    streams, text_head = np.asarray(model.stream_embed[...]), np.asarray(model.text_head[...])
    states = hidden[:, None] + np.where(np.arange(8)[:, None] > 0, streams, 0)
    codes = np.einsum("tsd,dsc->tsc", states, np.asarray(model.audio_head[...]))
    return np.concatenate([codes, states @ text_head[:, [EOS, EOT]]], axis=-1)


def whole(tokens) -> Batch:
    T = len(tokens)
    one = np.ones((1, T), np.int32)
    return Batch(jnp.asarray(tokens[None]), jnp.zeros((1, *tokens.shape)), jnp.asarray(one), jnp.arange(T)[None])


def test_guided_steps_with_a_cache_are_two_passes_over_the_whole_sequence(model, prompts):
    greedy = dataclasses.replace(SHORT, temperature=0.0)
    segment = generate(model, prompts, greedy)[1]
    rows, prompt = delay(segment.tokens, VOCABULARY), prompts[1].tokens
    opening = np.zeros((1, 8), np.int32)
    opening[0, 0] = AUDIO
    blank = np.zeros_like(prompt)
    blank[-1] = prompt[-1]
    start = len(prompt)
    cond, uncond = (
        stream_logits(model, np.concatenate([context, opening, rows]))[start:] for context in (prompt, blank)
    )
    logits = uncond + 3 * (cond - uncond)
    T, ids = len(segment.tokens), structure.column_ids(VOCABULARY)
    for step, row in enumerate(rows):
        frames = jnp.array([T if step > T else structure.OPEN])
        bounds = jnp.array([SHORT.min_frames]), jnp.array([SHORT.max_frames])
        allowed = structure.allowed_columns(jnp.int32(step), frames, *bounds, VOCABULARY)[0]
        best = np.where(allowed, logits[step], -np.inf).argmax(axis=-1)
        np.testing.assert_array_equal(ids[np.arange(8), best], row)
    assert segment.end == ("eos" if logits[-1, 0, -2] >= logits[-1, 0, -1] else "eot")


def test_the_unconditional_context_is_the_one_training_shows(prompts):
    """Defect of the reference: it trains with the role token and samples without it."""
    user = Message(Role.USER, Modality.TEXT, np.arange(5))
    answer = Message(Role.ASSISTANT, Modality.AUDIO, np.zeros((3, 8), np.int64))
    rng = np.random.default_rng(0)
    trained = drop_condition([user, answer], VOCABULARY, probability=1.0, rng=rng).tokens
    prompt = build_prompt([user], VOCABULARY)
    batch = batch_prompts([prompt], [None], guided=True, keep_role=True)
    used = len(prompt.tokens)
    np.testing.assert_array_equal(batch.tokens[1, :used], trained[:used])
    np.testing.assert_array_equal(batch.segment_ids[1], batch.segment_ids[0])
    without = batch_prompts([prompt], [None], guided=True, keep_role=False)
    assert not without.tokens[1].any()


def test_speech_can_be_chosen_and_sampled(model, prompts):
    """Defect of the reference: `<|speech|>` is not among the modalities it can choose."""
    speaker = jax.tree.map(lambda x: x, model)
    head = np.zeros(model.text_head.shape, np.float32)
    head[:, SPEECH] = hidden_states(model, whole(prompts[0].tokens))[0, -1]
    speaker.text_head = jax.device_put(head, model.text_head.sharding)
    (segment,) = generate(speaker, prompts[:1], SHORT, modality="auto")
    assert segment.modality == "speech"
    assert SHORT.min_frames <= len(segment.tokens) <= SHORT.max_frames
    theirs = dataclasses.replace(SHORT, reference_behaviour=True)
    (segment,) = generate(speaker, prompts[:1], theirs, modality="auto")
    assert segment.modality == "audio"


def test_the_opening_token_is_read(model, prompts, together):
    assert tokens_of(generate(model, prompts, SHORT, modality="speech")) != tokens_of(together)


def test_the_model_chooses_the_likeliest_modality_of_each_prompt(model, prompts):
    chosen = generate(model, prompts, SHORT, modality="auto")
    for index, prompt in enumerate(prompts):
        hidden = np.asarray(hidden_states(model, whole(prompt.tokens)))[0, -1]
        logits = hidden @ np.asarray(model.text_head[...])
        names = ["audio", "text", "speech"]
        best = int(np.argmax([logits[SPECIAL_TOKENS.index(name)] for name in names]))
        assert chosen[index].modality == names[best]
        fixed = generate(model, prompts, SHORT, modality=names[best])[index]
        assert fixed.tokens.tolist() == chosen[index].tokens.tolist()


def test_text_holds_text_alone_and_respects_its_limit(model, prompts):
    hot = dataclasses.replace(SHORT, text_temperature=5.0, text_top_k=0)
    for segment in generate(model, prompts, hot, modality="text"):
        assert segment.tokens.ndim == 1 and len(segment.tokens) <= SHORT.max_tokens
        assert ((segment.tokens >= 0) & (segment.tokens < VOCABULARY.text_size)).all()
        assert (segment.end is None) == (len(segment.tokens) == SHORT.max_tokens)


def test_what_a_clip_sounds_like_changes_the_answer(model):
    clip = Message(Role.USER, Modality.CLIP, 6)
    prompt = build_prompt([clip, clip], VOCABULARY)
    features = np.random.default_rng(0).normal(size=(12, 48)).astype(np.float32)

    def run(frames):
        return tokens_of(generate(model, [prompt], SHORT, modality="text", heard=[frames]))

    assert run(features) == run(features)
    assert run(features) != run(features[::-1])


def test_features_that_do_not_fit_the_clips_are_refused(model, prompts):
    with pytest.raises(ValueError, match="prompt 1 has clips of 0 frames, but 3 are heard"):
        generate(model, prompts, SHORT, heard=[None, np.zeros((3, 48), np.float32), None, None])
    with pytest.raises(UserError, match="modality must be one of audio, text, speech or auto"):
        generate(model, prompts, SHORT, modality="image")


def test_eight_devices_generate_what_one_does(golden_dir, prompts, together):
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        split = golden_model.load(golden_dir)
        # Three prompts do not fill four shards: an idle row does.
        assert tokens_of(generate(split, prompts[:3], SHORT)) == tokens_of(together)[:3]


def test_a_step_writes_its_slot_of_the_cache_and_copies_nothing(model, prompts):
    batch = place(batch_prompts(prompts, [None] * len(prompts), guided=True, keep_role=True))
    settings = Request(prompts[0], SHORT).settings("audio", 64, VOCABULARY)
    settings = place(jax.tree.map(lambda value: np.stack([value] * 4), settings))
    how = dict(num_steps=64, text=False, guided=True, enforce=True, greedy=False)
    program = decode.decode_segment.lower(make_weights(model), batch, settings, **how).compile().as_text()
    cache = "f32[8,2,128,16]"
    assert cache in program
    assert not [line for line in program.splitlines() if f"= {cache}" in line and " copy(" in line]


def test_buckets_are_few_and_never_too_small():
    sizes = {bucket(length) for length in range(1, 4097)}
    assert all(bucket(length) >= length for length in range(1, 4097))
    assert sorted(sizes)[:5] == [64, 96, 128, 192, 256] and len(sizes) == 13


def test_layers_with_8_bit_weights_generate_too(model, prompts, together):
    rounded = nnx.clone(model)
    round_layers(rounded)
    segments = generate(rounded, prompts, SHORT)
    assert tokens_of(segments) == tokens_of(generate(rounded, prompts, SHORT))
    for segment, whole in zip(segments, together, strict=True):
        assert segment.tokens.shape[1] == whole.tokens.shape[1] and 4 <= len(segment.tokens) <= 12
