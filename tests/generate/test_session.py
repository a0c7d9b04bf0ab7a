"""Conversations of text and sound: turns, forks, batches, and folders of them."""

import dataclasses
import json
import resource
import shutil

import jax
import numpy as np
import pytest
from helpers import golden_model
from helpers.audio_encoders import GOLDEN as ENCODER
from helpers.audio_encoders import random_encoder

from ualm_jax.errors import UserError
from ualm_jax.generate import decode as programs
from ualm_jax.generate.session import Session, replies
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.layout import build_grid, build_prompt
from ualm_jax.tokens.types import Modality, Role
from ualm_jax.tokens.vocabulary import EOS, EOT

SHORT = dict(min_frames=12, max_frames=12, max_tokens=8, text_temperature=2.0)


@pytest.fixture(autouse=True)
def one_device_mesh():
    """In place of the fixture of that name: users set no mesh."""


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return np.random.default_rng(3).normal(size=9000).astype(np.float32) * 0.1


def say_all(session: Session, said) -> Session:
    """The same messages, given to a session that has never seen them."""
    session.said = list(said)
    return session


def tokens(answer) -> list:
    return (answer.ids if answer.modality == "text" else answer.codes).tolist()


def first(session: Session, modality: str, **settings):
    """The first segment of a reply; the rest of it is not waited for."""
    return next(session.reply(modality, **SHORT | settings))


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


@pytest.fixture(scope="module")
def talk(pipeline, sound, tmp_path_factory):
    """A folder of a conversation of every kind of message, and the session itself."""
    folder = tmp_path_factory.mktemp("sessions") / "talk"
    session = pipeline.session(system="Be brief.", seed=6).say("What is this? \U0001f941").say(sound)
    first(session, "text")
    first(session.say("Make it."), "audio")
    session.listen().save(folder)
    return folder, session


@pytest.fixture
def saved(talk, tmp_path):
    """Both, with the folder to be changed at will."""
    return shutil.copytree(talk[0], tmp_path / "talk"), talk[1]


def test_a_reopened_session_goes_on_with_the_same_tokens(pipeline, saved):
    folder, session = saved
    session.save(folder)  # in its own place
    reopened = pipeline.open_session(folder)
    for one, other in zip(session.said, reopened.said, strict=True):
        np.testing.assert_array_equal(one.message.content, other.message.content)
        if one.samples is not None:
            np.testing.assert_array_equal(one.samples, other.samples)
    assert tokens(first(reopened, "text")) == tokens(first(session.fork(), "text"))
    assert [path.name for path in folder.parent.iterdir()] == ["talk"], "nothing is left beside it"
    assert (folder / "005.wav").is_file()
    reopened.close()


def edited(content, path, value):
    *path, last = path
    for key in path:
        content = content[key]
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    "path, value, message",
    [
        (["seed"], -1, "seed must be a whole number"),
        (["format"], 2, "expected a session of format 1"),
        (["vocabulary", "text_size"], 5, "was made with the vocabulary"),
        (["messages"], {}, "messages must be a list"),
        (["messages", 0], "hello", "message 0 must be a group"),
        (["messages", 0, "role"], "tool", "message 0 must have the role system, user or assistant, found 'tool'"),
        (["system"], "Be brief.", "a session has no field 'system'; remove it"),
        (["messages", 0, "txt"], "hello", "message 0 has a field 'txt', which means nothing beside text; remove it"),
        (["messages", 0, "text"], " ", "message 0 has an empty text"),
        (["messages", 1, "text"], None, "message 1 must hold one of text, sound and codes, found none"),
        (["messages", 2, "sound"], "../secret.wav", "message 2 must name a sound file of a user in the same folder"),
        (["messages", 2, "sound"], "/etc/passwd", "message 2 must name a sound file"),
        (["messages", 2, "sound"], "missing.wav", "missing.wav: there is no such file"),
        (["messages", 3, "ids"], [1, 999], "message 3 must have ids from 0 to 383"),
        (["messages", 3, "text"], "Something else", "message 3 has a text that its ids do not spell; remove the ids"),
        (["messages", 5, "codes", 1], [1, 2], "message 5 must have frames of 8 codes from 0 to 31, but frame 1 is not"),
        (["messages", 5, "role"], "user", "message 5 holds codes, so it must be the assistant's"),
    ],
)
def test_a_file_that_was_edited_wrongly_is_one_sentence(pipeline, saved, path, value, message):
    folder, _ = saved
    content = json.loads((folder / "session.json").read_text())
    edited(content, path, value)
    (folder / "session.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        pipeline.open_session(folder)


def test_a_text_that_was_edited_rightly_is_taken(pipeline, saved):
    folder, _ = saved
    content = json.loads((folder / "session.json").read_text())
    edited(content, ["messages", 3, "text"], "A drum.")
    edited(content, ["messages", 3, "ids"], None)
    (folder / "session.json").write_text(json.dumps(content))
    session = pipeline.open_session(folder)
    assert session.messages[3].content.tolist() == pipeline.tokenizer.encode("A drum.")


def test_a_folder_that_is_no_session_or_cannot_be_written_is_left_alone(pipeline, saved, tmp_path, monkeypatch):
    folder, session = saved
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already and is not empty"):
        session.save(tmp_path / "mine")
    with pytest.raises(UserError, match="session.json: can not be read"):
        pipeline.open_session(tmp_path / "mine")
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    monkeypatch.setattr(
        "ualm_jax.generate.session_folder.write_sound",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(UserError, match="can not be saved .there is no room left"):
        session.save(folder)
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before
    (folder / "session.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        pipeline.open_session(folder)


def test_a_sound_that_the_disk_has_no_room_for_leaves_nothing(pipeline, sound, tmp_path):
    session = pipeline.session().say(sound)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        with pytest.raises(UserError, match="talk: the session can not be saved .File too large"):
            session.save(tmp_path / "talk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    session.save(tmp_path / "talk")
    np.testing.assert_array_equal(pipeline.open_session(tmp_path / "talk").said[0].samples, session.said[0].samples)


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
