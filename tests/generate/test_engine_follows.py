"""Segments that go on from what was there: a conversation's past, audio that has begun, a text's end."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import golden_model

from ualm_jax.generate import SamplingParams
from ualm_jax.generate import decode as programs
from ualm_jax.generate.engine import Engine
from ualm_jax.generate.prompts import unconditional
from ualm_jax.generate.request import Request
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.delay import delay
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.types import Message, Modality, Role

VOCABULARY = golden_model.ARCHITECTURE.vocabulary
PARAMS = SamplingParams(min_frames=20, max_frames=20, max_tokens=12, text_temperature=2.0, text_top_k=0, seed=3)


@pytest.fixture(scope="module")
def engine(model) -> Engine:
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        return Engine(model, slots=2, sequences=4, capacity=256, chunk=5)


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """Positions of each prompt that is read, in order."""
    lengths = []
    prefill = programs.prefill

    def counted(weights, batch, *args):
        lengths.extend(n for n in np.asarray(batch.segment_ids).sum(axis=1).tolist() if n)
        return prefill(weights, batch, *args)

    monkeypatch.setattr(programs, "prefill", counted)
    return lengths


def ask(seed, length) -> Message:
    return Message(Role.USER, Modality.TEXT, np.random.default_rng(seed).integers(0, 384, length))


def make(engine, prompt, past=None, **settings):
    job = engine.submit(Request(prompt, **{"params": PARAMS, "keep": True} | settings), past)
    while not job.done:
        engine.advance()
    return job


def answer(job) -> Message:
    text = job.modality == "text"
    return Message(Role.ASSISTANT, Modality.TEXT if text else Modality.AUDIO, job.result().tokens)


@pytest.mark.parametrize("first, second", [("text", "audio"), ("audio", "text"), ("audio", "audio")])
def test_a_second_turn_equals_one_long_prompt_and_reads_only_what_is_new(engine, read, first, second):
    turn = make(engine, build_prompt([ask(0, 30)], VOCABULARY), modality=first)
    longer = build_prompt([ask(0, 30), answer(turn), ask(1, 7)], VOCABULARY)
    read.clear()
    followed = make(engine, longer, turn.past, modality=second)
    new = len(longer.tokens) - (35 + len(turn.tokens))
    # The unconditional sequence of guided audio is another one every time, and read as a whole.
    assert sorted(read) == sorted([new, len(longer.tokens)] if second == "audio" else [new]) and new < 20
    fresh = make(engine, longer, modality=second)
    np.testing.assert_array_equal(followed.tokens, fresh.tokens)
    for job in (followed, fresh):
        engine.forget(job.past)


def test_both_ends_of_a_fork_go_on_by_themselves(engine):
    turn = make(engine, build_prompt([ask(0, 30)], VOCABULARY), modality="text")
    prompts = [build_prompt([ask(0, 30), answer(turn), ask(seed, 5)], VOCABULARY) for seed in (1, 2)]
    pasts = [turn.past, engine.copy(turn.past)]
    forks = [make(engine, *pair, modality="text") for pair in zip(prompts, pasts, strict=True)]
    assert all(past.place is None for past in pasts)  # what follows has taken them over
    for prompt, fork in zip(prompts, forks, strict=True):
        np.testing.assert_array_equal(fork.tokens, make(engine, prompt, modality="text").tokens)


def test_a_past_that_had_to_make_room_is_read_again(engine, read):
    turn = make(engine, build_prompt([ask(0, 30)], VOCABULARY), modality="text")
    longer = build_prompt([ask(0, 30), answer(turn), ask(1, 7)], VOCABULARY)
    for seed in range(4):  # as many sequences as there are
        make(engine, build_prompt([ask(seed, 9)], VOCABULARY), modality="text")
    assert turn.past.place is None
    read.clear()
    followed = make(engine, longer, turn.past, modality="text")
    assert read == [len(longer.tokens)]
    np.testing.assert_array_equal(followed.tokens, make(engine, longer, modality="text").tokens)


def test_a_past_stays_where_only_a_slot_is_missing(model):
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        engine = Engine(model, slots=1, sequences=4, capacity=256, chunk=5)
    turn = make(engine, build_prompt([ask(0, 30)], VOCABULARY), modality="text")
    prompt = build_prompt([ask(1, 9)], VOCABULARY)
    jobs = [engine.submit(Request(prompt, params=PARAMS, modality="text")) for _ in range(3)]
    while not all(job.done for job in jobs):
        engine.advance()
    assert turn.past.place is not None


@pytest.mark.parametrize("frames", [1, 3, 12])
def test_audio_that_has_begun_is_continued_as_if_it_had_not_stopped(engine, frames):
    """Complete frames are given, so the first of the new positions are known in part."""
    prompt = build_prompt([ask(0, 12)], VOCABULARY)
    whole = make(engine, prompt, keep=False)
    codes = whole.result().tokens
    rows = delay(codes[:frames], VOCABULARY)
    given = np.where(np.arange(8) > np.arange(7)[:, None], rows[frames : frames + 7], 0)
    continued = make(engine, prompt, begun=rows[:frames], given=given, keep=False)
    np.testing.assert_array_equal(continued.tokens, whole.tokens)
    np.testing.assert_array_equal(continued.result().tokens, codes)


def test_a_text_stops_where_it_is_told_to(engine):
    prompt = build_prompt([ask(0, 12)], VOCABULARY)
    whole = make(engine, prompt, modality="text").result()
    wanted = int(whole.tokens[3])

    def until(ids):
        return 3 if wanted in ids[3:] else None

    stopped = make(engine, prompt, modality="text", until=until)
    np.testing.assert_array_equal(stopped.result().tokens, whole.tokens[:3])
    assert stopped.result().end == "eos"
    assert len(make(engine, prompt).tokens) == 28, "the slot is free again"


def test_a_negative_prompt_stands_in_place_of_the_empty_one(engine):
    prompt = build_prompt([ask(0, 12)], VOCABULARY)
    default, empty, other, itself = (
        make(engine, prompt, negative=negative).tokens.tolist()
        for negative in (None, unconditional(prompt, True), build_prompt([ask(1, 40)], VOCABULARY), prompt)
    )
    assert default == empty != other
    plain = make(engine, prompt, params=dataclasses.replace(PARAMS, cfg_scale=1.0)).tokens.tolist()
    assert itself == plain, "nothing leads away from the prompt itself"
