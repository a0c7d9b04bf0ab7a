"""The second that a record means is the one that is stored, in whatever spelling, or the record is refused."""

import json

import pytest
from helpers.sound_files import heard, sound_file, tones

from ualm_jax.audio.io import BadAudio
from ualm_jax.data.raw.formats import JsonConversations
from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.data.raw.segment import may_name_segment
from ualm_jax.data.raw.sound_source import BadRecord

STEPS = tuple(range(200, 1200, 100))  # Hz in each of ten seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    (folder / "steps.wav").write_bytes(sound_file(tones(*STEPS, rate=4000), rate=4000))
    return folder


def manifest(folder, fields, **options):
    (folder / "m.jsonl").write_text(json.dumps({"audio": "steps.wav", "caption": "A tone."} | fields) + "\n")
    return Manifest(folder / "m.jsonl", 16000, **options)


def generation(folder, fields, **options):
    record = {"location": "steps.wav", "caption": "A tone.", "sample_rate": 4000}
    (folder / "g.jsonl").write_text(json.dumps(record | fields) + "\n")
    return JsonConversations(folder / "g.jsonl", "generation", **options)


def understanding(folder, fields, **options):
    turns = [{"from": "human", "value": "<sound>\nWhich tone?"}, {"from": "gpt", "value": "500 Hz."}]
    (folder / "u.jsonl").write_text(json.dumps({"sound": "steps.wav", "conversations": turns} | fields) + "\n")
    return JsonConversations(folder / "u.jsonl", "understanding", **options)


def dialogue(folder, fields, **options):
    messages = [["user", "text", "Play."], ["assistant", "audio", "steps.wav"]]
    (folder / "d.jsonl").write_text(json.dumps({"messages": messages} | fields) + "\n")
    return JsonConversations(folder / "d.jsonl", "dialogue", **options)


def sound_of(source):
    if isinstance(source, Manifest):
        return source[0].wav
    return next(message for message in source[0].messages if message.modality != "text").content.read(16000)


WITH_SEGMENTS = pytest.mark.parametrize("form", [manifest, generation, understanding])
SPELLINGS = [
    {"start": 3.0, "end": 4.0},
    {"start_time": 3, "end_time": 4},
    {"offset": 3.0, "duration": 1.0},
    {"start_time": 3.0, "duration": 1},
    {"start": 3.0, "end": 4.0, "duration": 1.01},
    {"start": 3.0, "start_time": 3, "offset": 3.0, "end": 4.0},
]


@WITH_SEGMENTS
@pytest.mark.parametrize("fields", SPELLINGS, ids=lambda fields: "-".join(fields))
def test_the_second_that_is_meant_is_read(folder, form, fields):
    sound = sound_of(form(folder, fields))
    assert len(sound) == 16000 and heard(sound) == [500]


@WITH_SEGMENTS
def test_a_start_or_an_end_alone_is_enough(folder, form):
    assert heard(sound_of(form(folder, {"offset": 8}))) == [1000, 1100]
    assert heard(sound_of(form(folder, {"end_time": 2}))) == [200, 300]
    assert heard(sound_of(form(folder, {}))) == list(STEPS)


@WITH_SEGMENTS
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": 3, "offset": 4}, r"'start' and 'offset' mean the same, found \[3.0, 4.0\]"),
        (
            {"start": 3, "end": 4, "duration": 10},
            "'duration' is 10, but from 3 to 4 it is 1; the duration of the whole",
        ),
        ({"start_time": 4, "end_time": 3}, "'start_time' must be before the end, found 4 and 3"),
        ({"offset": "3"}, "'offset' must be a number of seconds from 0 on, found '3'"),
        ({"start": 9, "duration": 1.01}, "9 s to 10.01 s is outside the file, which lasts 10 s"),
        ({"duration": 1}, "lasts 10 s, but its record says 'duration' 1; name a segment by its start, too"),
        ({"duration": 20.0}, "lasts 10 s, but its record says 'duration' 20"),
    ],
)
def test_fields_that_contradict_each_other_or_the_file_are_told(folder, form, fields, message):
    with pytest.raises((BadRecord, BadAudio), match=message):
        sound_of(form(folder, fields))


@WITH_SEGMENTS
def test_rounding_is_forgiven(folder, form):
    assert len(sound_of(form(folder, {"start": 0.0, "duration": 10.001}))) == 160_000
    assert len(sound_of(form(folder, {"start": 9.5, "end": 10.004}))) == 8000
    assert len(sound_of(form(folder, {"duration": 10.03}))) == 160_000


OTHER_DIALECTS = [
    {"begin": 3.0},
    {"from": 3, "to": 4},
    {"start_ms": 3000, "end_ms": 4000},
    {"startTime": 3.0},
    {"start_second": "00:00:03"},
    {"onset": "3.0s"},
    {"segment": [3.0, 4.0]},
    {"timestamps": {"first": 3}},
    {"meta": {"clip": {"begin_time": 3.0}}},
    {"frame_offset": 12000, "num_frames": 4000},
    {"t0": 3, "t1": 4},
    {"length": 1.0},
    {"time": "3-4"},
]


@pytest.mark.parametrize("form", [manifest, generation, understanding, dialogue])
@pytest.mark.parametrize("fields", OTHER_DIALECTS, ids=lambda fields: "-".join(fields))
def test_a_field_that_may_name_a_segment_is_a_bad_record_until_it_is_declared_meaningless(folder, form, fields):
    with pytest.raises(BadRecord, match="unknown field '.*--ignore-fields") as caught:
        sound_of(form(folder, fields))
    assert "line 1" in str(caught.value)
    assert len(sound_of(form(folder, fields, ignore=list(fields)))) == 160_000


def test_a_dialogue_knows_no_segments(folder):
    with pytest.raises(BadRecord, match="unknown field 'start'"):
        sound_of(dialogue(folder, {"start": 3.0}))


def test_fields_that_say_nothing_of_time_are_not_used_and_named(folder):
    more = {"dataset": "steps", "sampling_rate": 4000, "tags": ["a"], "end_user": "anna", "stop": None, "score": 0.5}
    for form in (generation, understanding, dialogue):
        assert set(form(folder, more)[0].unused) - {"sample_rate"} == set(more)
    record = {"input": [{"role": "user", "content": "Go.", "at": 3}], "output": "Yes.", "start": 1}
    (folder / "t.jsonl").write_text(json.dumps(record) + "\n")
    assert set(JsonConversations(folder / "t.jsonl", "text")[0].unused) == {"at", "start"}
    assert manifest(folder, {"begin": 1}, ignore=["begin", "end"])[0].unused == ("begin",)


def test_a_turn_may_not_hide_a_segment(folder):
    turns = [{"from": "human", "value": "<sound> Which?", "begin": 3.0}, {"from": "gpt", "value": "500 Hz."}]
    with pytest.raises(BadRecord, match="unknown field 'begin'"):
        sound_of(understanding(folder, {"conversations": turns}))


def test_of_several_sounds_a_segment_is_none_of_them(folder):
    turns = [{"from": "human", "value": "<sound> <sound> Which?"}, {"from": "gpt", "value": "500 Hz."}]
    several = {"sound": ["steps.wav", "steps.wav"], "conversations": turns}
    with pytest.raises(BadRecord, match="'offset' does not say which of the 2 sounds it is of"):
        sound_of(understanding(folder, several | {"offset": 3.0}))
    assert understanding(folder, several | {"duration": 10.0})[0].unused == ("duration",)


def test_names_without_time_in_them_are_harmless():
    for name in (
        "sample_rate",
        "sampling_rate",
        "id",
        "caption",
        "clip_id",
        "license",
        "speaker",
        "attendance",
        "tokens",
    ):
        assert not may_name_segment(name), name
