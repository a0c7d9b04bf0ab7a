"""Folders of conversations: opened again, edited, and written whole or not at all."""

import json
import os
import pathlib
import resource
import shutil

import numpy as np
import pytest
from helpers.conversing import first, noise, tokens

from ualm_jax.errors import UserError


@pytest.fixture(autouse=True)
def one_device_mesh():
    """In place of the fixture of that name: users set no mesh."""


@pytest.fixture(scope="module")
def talk(pipeline, tmp_path_factory):
    """A folder of a conversation of every kind of message, and the session itself."""
    folder = tmp_path_factory.mktemp("sessions") / "talk"
    session = pipeline.session(system="Be brief.", seed=6).say("What is this? \U0001f941").say(noise())
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


def test_what_else_lies_in_the_folder_stays_there(saved, monkeypatch):
    folder, session = saved
    (folder / "chat-001.wav").write_bytes(b"a sound")
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("mine")
    session.save(folder)
    assert (folder / "chat-001.wav").read_bytes() == b"a sound"
    assert (folder / "more" / "notes.txt").read_text() == "mine"
    before = sorted(path.name for path in folder.iterdir())

    def no_links(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    session.save(folder)
    assert (folder / "chat-001.wav").read_bytes() == b"a sound"
    assert sorted(path.name for path in folder.iterdir()) == before

    rename = pathlib.Path.rename

    def fails(self, target):
        if self.name.endswith(".part"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", fails)
    with pytest.raises(UserError, match="can not be saved"):
        session.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_other_weights_are_told(pipeline, saved, caplog):
    folder, _ = saved
    pipeline.open_session(folder)
    assert "other weights" not in caplog.text
    content = json.loads((folder / "session.json").read_text())
    content["model"]["weights"] = {"model": "another"}
    (folder / "session.json").write_text(json.dumps(content))
    pipeline.open_session(folder)
    assert "was saved with other weights" in caplog.text


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


def test_a_sound_that_the_disk_has_no_room_for_leaves_nothing(pipeline, tmp_path):
    session = pipeline.session().say(noise())
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
