"""The published raw formats become conversations; what is wrong with a record names file, line and field."""

import json

import numpy as np
import pytest
import soundfile
from helpers.fake_sounds import prepare_fake

from ualm_jax.audio.io import BadAudio
from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.raw.conversation import ConversationSource
from ualm_jax.data.raw.files import FileSound
from ualm_jax.data.raw.formats import JsonConversations
from ualm_jax.data.raw.json_records import JsonRecords
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    soundfile.write(tmp_path / "b.flac", np.stack([noise, noise], 1), 44100)
    return tmp_path


TEXT = {"input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}], "output": "4"}
UNDERSTANDING = {
    "id": "clip-1",
    "sound": ["a.wav", "b.flac"],
    "duration": 1.0,
    "conversations": [
        {"from": "human", "value": "<sound>\nAnd this: <sound> Which is louder?"},
        {"from": "gpt", "value": "The first."},
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": 'It is {longer}: "[x" ].'},
    ],
}
GENERATION = {
    "location": "a.wav",
    "start_time": 0.25,
    "end_time": 0.75,
    "duration": 0.5,
    "caption": "A hiss.",
    "sample_rate": 16000,
}
DIALOGUE = {
    "messages": [
        ["user", "text", "Make a hiss."],
        ["assistant", "text", "Here it is."],
        ["assistant", "audio", "a.wav"],
        ["user", "audio", "b.flac"],
        ["assistant", "speech", "a.wav"],
    ]
}
EXPECTED = {
    "text": ["system text", "user text", "assistant text"],
    "understanding": ["user continuous_audio", "user text", "user continuous_audio", "user text"]
    + ["assistant text", "user text", "assistant text"],
    "generation": ["user text", "assistant discrete_audio"],
    "dialogue": ["user text", "assistant text", "assistant discrete_audio", "user continuous_audio"]
    + ["assistant discrete_audio"],
}
RECORDS = {"text": TEXT, "understanding": UNDERSTANDING, "generation": GENERATION, "dialogue": DIALOGUE}


def source_of(folder, format, *records, listed=False) -> JsonConversations:
    path = folder / "raw.json"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("[" + ",\n ".join(lines) + "]\n" if listed else "".join(line + "\n" for line in lines))
    return JsonConversations(path, format)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("format", RECORDS)
def test_a_record_becomes_a_conversation(folder, format, listed):
    source = source_of(folder, format, RECORDS[format], RECORDS[format], listed=listed)
    assert isinstance(source, ConversationSource) and len(source) == 2
    conversation = source[1]
    assert conversation.id == ("clip-1" if format == "understanding" else "raw:2")
    assert [f"{m.role} {m.modality}" for m in conversation.messages] == EXPECTED[format]
    for message in conversation.messages:
        if message.modality != "text":
            assert message.content.read(16000).dtype == np.float32


def test_segments_are_read_and_nothing_around_them(folder):
    whole = soundfile.read(folder / "a.wav", dtype="float32")[0]
    (_, message) = source_of(folder, "generation", GENERATION)[0].messages
    np.testing.assert_array_equal(message.content.read(16000), whole[4000:12000])
    by_duration = {key: value for key, value in GENERATION.items() if key != "end_time"}
    (_, message) = source_of(folder, "generation", by_duration)[0].messages
    np.testing.assert_array_equal(message.content.read(16000), whole[4000:12000])


def test_texts_around_sounds_keep_their_place(folder):
    messages = source_of(folder, "understanding", UNDERSTANDING)[0].messages
    assert [m.content for m in messages if m.modality == "text"][:2] == ["And this:", "Which is louder?"]
    assert [m.content.path.rsplit("/")[-1] for m in messages if m.modality != "text"] == ["a.wav", "b.flac"]
    assert messages[-1].content == 'It is {longer}: "[x" ].'


CODE = "    if a:\n\treturn a + 1  \n"


def test_texts_are_kept_as_they_are_written(folder):
    talk = {"input": [{"role": "user", "content": f"\n{CODE}"}], "output": CODE}
    assert [m.content for m in source_of(folder, "text", talk)[0].messages] == [f"\n{CODE}", CODE]
    assert source_of(folder, "dialogue", {"messages": [["user", "text", CODE]]})[0].messages[0].content == CODE
    heard = UNDERSTANDING | {"sound": "a.wav", "conversations": [
        {"from": "human", "value": f"{CODE} \n<sound>\n \n{CODE}"}, {"from": "gpt", "value": CODE}]}  # fmt: skip
    messages = source_of(folder, "understanding", heard)[0].messages
    assert [m.content for m in messages if m.modality == "text"] == [CODE.rstrip(), CODE, CODE]


def test_speech_is_announced_as_such(folder):
    tags = [message.audio_tag for message in source_of(folder, "dialogue", DIALOGUE)[0].messages]
    assert tags == ["audio", "audio", "audio", "audio", "speech"]


def _said(role, modality="text", **learn) -> dict:
    return {"role": role, "modality": modality, "content": "a.wav"} | learn


WRONG = [
    ("text", "{", "line 2: not valid JSON"),
    ("text", "[1]", "line 2: expected a JSON object, found list"),
    ("text", TEXT | {"output": ""}, "line 2 .id raw:2.: 'output' must be a text that is not empty"),
    ("text", TEXT | {"input": []}, "'input' must be a list that is not empty"),
    ("text", TEXT | {"input": [{"role": "bard", "content": "x"}]}, "'role' must be one of .* found 'bard'"),
    (
        "understanding",
        UNDERSTANDING | {"sound": "a.wav"},
        r"id clip-1.: turn 1 has a <sound> more than the 1 of 'sound'",
    ),
    (
        "understanding",
        UNDERSTANDING | {"sound": ["a.wav"] * 3},
        "'sound' names 3 files, the conversation has 2 <sound>",
    ),
    ("understanding", UNDERSTANDING | {"sound": None}, "'sound' must be a text"),
    ("understanding", UNDERSTANDING | {"id": ""}, "'id' must be"),
    ("generation", GENERATION | {"end_time": 0.1}, "'start_time' must be before the end, found 0.25 and 0.1"),
    ("generation", GENERATION | {"start_time": "0"}, "'start_time' must be a number of seconds"),
    ("generation", GENERATION | {"caption": 3}, "'caption' must be a text"),
    ("generation", GENERATION | {"location": "../a.wav"}, "leads out of"),
    ("dialogue", {"messages": [["user", "text"]]}, r"message 1 must be \[role, modality, content\]"),
    (
        "dialogue",
        {"messages": [_said("user"), _said("assistant", learn=1)]},
        "message 2: 'learn' must be true or false",
    ),
    ("dialogue", {"messages": [_said("user"), _said("assistant", learn=False)]}, "no message is learnt"),
    ("dialogue", {"messages": [_said("user", modality="audio", learn=True)]}, "sound of the user is heard, not made"),
    ("dialogue", {"messages": [["user", "video", "x"]]}, "message 1: the modality must be text, audio or speech"),
]


def test_a_message_says_itself_whether_it_is_learnt(folder):
    turns = [_said("user"), _said("assistant", "audio", learn=False), ["assistant", "speech", "a.wav"]]
    record = {"messages": [*turns, _said("user", learn=True), _said("assistant")]}
    conversation = source_of(folder, "dialogue", record)[0]
    assert [message.learn for message in conversation.messages] == [None, False, None, True, None]
    assert not conversation.unused
    chat = [{"role": "assistant", "content": "Hm?", "learn": False}, {"role": "user", "content": "So?"}]
    messages = source_of(folder, "text", {"input": chat, "output": "Yes."})[0].messages
    assert [message.learn for message in messages] == [False, None, None]


@pytest.mark.parametrize("format, record, message", WRONG)
def test_what_is_wrong_is_one_sentence(folder, format, record, message):
    source = source_of(folder, format, RECORDS[format], record)
    source[0]
    with pytest.raises(BadRecord, match=message) as caught:
        source[1]
    assert "raw.json line 2" in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_is_indexed_whatever_stands_in_its_texts(folder):
    texts = ["plain", 'a "quoted" ] one', "back\\slash\\\\", "{[}", "ünïcode ☃", "line\nbreak"]
    path = folder / "list.json"
    path.write_text(json.dumps([{"id": text, "deep": [[{"x": text}]]} for text in texts], indent=1, ensure_ascii=False))
    records = JsonRecords(path)
    assert [records[index]["id"] for index in range(len(records))] == texts
    assert records.where(2).endswith("list.json entry 3")
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UserError, match="list is not closed"):
        JsonRecords(path)


def test_memory_holds_places_and_not_records(folder):
    source = source_of(folder, "text", *[TEXT | {"output": "word " * 500}] * 1000, listed=True)
    held = sum(value.nbytes for value in vars(source._records).values() if isinstance(value, np.ndarray))
    assert held == 24 * 1000


def test_urls_are_read_as_files_are(folder):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/set/a.wav", (folder / "a.wav").read_bytes())
    memory.pipe("/set/raw.jsonl", (json.dumps(GENERATION) + "\n").encode())
    (_, message) = JsonConversations("memory://set/raw.jsonl", "generation")[0].messages
    assert len(message.content.read(16000)) == 8000
    memory.rm("/set/a.wav")
    with pytest.raises(BadAudio, match="nowhere://a.wav: can not be opened .*; URLs need `pip install"):
        FileSound("nowhere://a.wav").read(16000)
    with pytest.raises(UserError, match="memory://set/a.wav: can not be opened"):
        message.content.read(16000)


def test_all_formats_become_records(parts, folder, tmp_path):
    source = source_of(folder, "dialogue", DIALOGUE, {"messages": [["user", "text", "a"], ["assistant", "text", "b"]]})
    info = prepare_fake(source, parts, tmp_path / "out")
    first, second = (open_records(info)[index] for index in range(2))
    assert [message.modality for message in first.messages] == [m.split()[1] for m in EXPECTED["dialogue"]]
    clip = next(message for message in first.messages if message.modality == "continuous_audio")
    assert abs(clip.content - 16000 * 16000 / 44100) <= 1 and len(first.clips) == 1
    assert info.audio_hours == pytest.approx(2 * info.speech_hours) and info.speech_hours > 0
    assert second.clips == () and info.heard_hours == pytest.approx(clip.content / 16000 / 3600)
