"""Conversations of text and sound: turns, forks and batches."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import golden_model
from helpers.audio_encoders import GOLDEN as ENCODER
from helpers.audio_encoders import random_encoder
from helpers.conversing import SHORT, first, noise, tokens

from ualm_jax.errors import UserError
from ualm_jax.generate import decode as programs
from ualm_jax.generate.session import Session, replies
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.layout import build_grid, build_prompt
from ualm_jax.tokens.types import Modality, Role
from ualm_jax.tokens.vocabulary import EOS, EOT


@pytest.fixture(autouse=True)
def one_device_mesh():
    """In place of the fixture of that name: users set no mesh."""


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return noise()


def say_all(session: Session, said) -> Session:
    """The same messages, given to a session that has never seen them."""
    session.said = list(said)
    return session


def test_a_second_turn_equals_one_long_prompt_and_reads_only_what_is_new(pipeline, sound, monkeypatch):
    session = pipeline.session(seed=4).say("What is this?").say(sound)
    made = [first(session, "text")]
    session.say("Make it again.")
    read = []
    prefill = programs.prefill

    def counted(weights, batch, *args):
        read.extend(n for n in np.asarray(batch.segment_ids).sum(axis=1).tolist() if n)
        return prefill(weights, batch, *args)

    monkeypatch.setattr(programs, "prefill", counted)
    made.append(first(session, "audio", cfg_scale=1.0))
    whole = build_prompt(session.messages[:-1], pipeline.model.architecture.vocabulary)
    assert read and max(read) < len(whole.tokens) / 2, (read, len(whole.tokens))
    fresh = say_all(pipeline.session(seed=4), session.said[:-1])
    assert tokens(first(fresh, "audio", cfg_scale=1.0)) == tokens(made[1])
    assert [said.message.role for said in session.said] == [Role.USER, Role.USER, Role.ASSISTANT, Role.USER] + [
        Role.ASSISTANT
    ]
    for each in (session, fresh):
        each.close()


def test_segments_follow_each_other_until_eos(pipeline, monkeypatch):
    """An eot is made likelier than an eos twice, by what the engine says of the ends."""
    from ualm_jax.generate import job as jobs

    ends, finish = iter(["eot", "eot", "eos"]), jobs.finish

    def other_end(rows, *args):
        tokens, _ = finish(rows, *args)
        return tokens, next(ends)

    session = pipeline.session().say("Two things, please.")
    monkeypatch.setattr(jobs, "finish", other_end)
    segments = list(session.reply("audio", **SHORT | {"min_frames": 2, "max_frames": 2}))
    assert [segment.end for segment in segments] == ["eot", "eot", "eos"]
    assert len({segment.seed for segment in segments}) == 3
    grid = build_grid(session.messages, pipeline.model.architecture.vocabulary)
    assert [token for token in grid.tokens[:, 0].tolist() if token in (EOS, EOT)] == [EOS, EOT, EOT, EOS]
    session.close()


def test_the_model_may_choose_what_it_answers_with(pipeline):
    session = pipeline.session().say("Anything.")
    answer = first(session, "auto")
    assert answer.modality in ("audio", "speech", "text") and len(session.said) == 2
    session.close()


def test_a_fork_equals_a_fresh_session_and_leaves_the_first_alone(pipeline):
    session = pipeline.session(seed=2).say("Hello.")
    first(session, "text")
    fork, other = session.fork(), session.fork(seed=9)
    replied = {}
    for name, each, words in (("fork", fork, "One."), ("session", session, "Two."), ("other", other, "Two.")):
        replied[name] = tokens(first(each.say(words), "text"))
    for name, each in (("fork", fork), ("session", session)):
        fresh = say_all(pipeline.session(seed=2), each.said[:-1])
        assert tokens(first(fresh, "text")) == replied[name]
        fresh.close()
    assert replied["other"] != replied["session"]
    for each in (session, fork, other):
        each.close()


def test_another_reply_can_be_asked_for(pipeline):
    session = pipeline.session(seed=1).say("Hello.")
    once = tokens(first(session, "text"))
    assert tokens(first(session.undo(), "text")) == once
    session.undo().seed = 50
    assert tokens(first(session, "text")) != once and len(session.said) == 2
    session.close()


def test_what_a_string_has_cut_off_was_never_said(pipeline):
    session = pipeline.session(seed=1).say("Hello.")
    whole = next(session.reply("text", temperature=2.0, max_tokens=12)).text
    session.undo()
    cut = next(session.reply("text", temperature=2.0, max_tokens=12, stop=whole[5:7])).text
    assert cut == whole[: whole.index(whole[5:7])]
    assert pipeline.tokenizer.decode(session.messages[-1].content.tolist()) == cut
    session.close()


def test_sessions_that_can_not_reply_side_by_side_are_refused(pipeline):
    session = pipeline.session().say("Hello.")
    other = dataclasses.replace(pipeline).session().say("Hello.")
    for together in ([session, session], [session, other]):
        with pytest.raises(UserError, match="different ones, and of one model"):
            list(replies(together))


def test_sessions_reply_side_by_side_as_each_does_alone(pipeline, sound):
    def conversations():
        return [
            pipeline.session(seed=3).say("Hello."),
            pipeline.session(seed=7).say("What is this?").say(sound),
            pipeline.session(seed=5),
            pipeline.session(seed=5).say("A somewhat longer question about nothing at all."),
        ]

    together, found = conversations(), {}
    for session, answer in replies(together, "text", **SHORT):
        found.setdefault(session, answer)
    assert "Nothing has been said" in str(found.pop(together[2]))
    alone = conversations()
    for each, single in zip(together, alone, strict=True):
        if each in found:
            assert tokens(found[each]) == tokens(first(single, "text"))
    for session in (*together, *alone):
        session.close()


def test_a_model_listens_to_what_it_has_made(pipeline):
    session = pipeline.session().say("A beep.")
    clip = first(session, "audio", min_frames=20, max_frames=20)
    session.listen()
    heard = session.said[-1]
    assert (heard.message.role, heard.message.modality) == (Role.USER, Modality.CLIP)
    peak = np.abs(clip.samples).max()
    assert peak > 1
    np.testing.assert_array_equal(heard.samples, clip.samples / peak)
    np.testing.assert_array_equal(session.messages[1].content, clip.codes)
    grid = build_grid(session.messages, pipeline.model.architecture.vocabulary)
    start = grid.clips[0].start
    assert grid.clips[0].length == heard.message.content and not grid.loss_weights[start - 2 :].any()
    assert first(session, "text").text is not None
    with pytest.raises(UserError, match="has made no sound"):
        pipeline.session().say("A beep.").listen()
    session.close()


def test_a_conversation_that_outgrows_the_window_says_so(pipeline):
    session = pipeline.session().say("word " * 200)
    with pytest.raises(UserError, match="conversation takes 10.* but there is room for 256: begin a new one, or load"):
        next(session.reply("text"))
    assert len(session.said) == 1


@pytest.mark.slow
def test_eight_devices_converse_as_one_does(pipeline, golden_dir, sound):
    """Slots and what they remember are spread over four groups of two devices that share the heads."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        parts = dict(model=golden_model.load(golden_dir), encoder=random_encoder(ENCODER))
    spread = dataclasses.replace(pipeline, mesh=mesh, **parts)

    def converse(model):
        session = model.session(seed=4).say("What is this?").say(sound)
        made = [tokens(first(session, "text"))]
        session.say("Make it again.")
        fork = session.fork()
        made += [tokens(first(each, "audio")) for each in (session, fork)]
        for each in (session, fork):
            each.close()
        return made

    assert converse(spread) == converse(pipeline)
