"""Manifests of recorded sounds: what is listed is read, and what can not be used says which line and why."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.data.raw.sound_source import BadRecord, SoundSource
from ualm_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set").mkdir()
    ramp = np.linspace(-0.5, 0.5, 16000, dtype=np.float32)
    soundfile.write(tmp_path / "set" / "ramp.wav", ramp, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "outside.wav", ramp, 16000, subtype="FLOAT")
    return tmp_path / "set"


def manifest_of(folder, *records, **options) -> Manifest:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "train.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return Manifest(folder / "train.jsonl", sample_rate=16000, **options)


def test_records_become_captioned_sounds(folder):
    manifest = manifest_of(
        folder,
        {"audio": "ramp.wav", "caption": "A ramp."},
        {"audio": "ramp.wav", "caption": " Half a ramp: ½. ", "start": 0.5, "id": "half"},
        {"audio": "ramp.wav", "caption": "The middle.", "start": 0.25, "end": 0.75},
    )
    assert isinstance(manifest, SoundSource) and manifest.name == "train"
    whole, half, middle = manifest
    assert [sound.id for sound in (whole, half, middle)] == ["train:1", "half", "train:3"]
    assert (half.caption, half.sample_rate, half.scene) == ("Half a ramp: ½.", 16000, None)
    np.testing.assert_array_equal(half.wav, whole.wav[8000:])
    np.testing.assert_array_equal(middle.wav, whole.wav[4000:12000])
    with pytest.raises(IndexError):
        manifest[-1]


def test_sounds_come_at_the_asked_rate(folder):
    manifest_of(folder, {"audio": "ramp.wav", "caption": "A ramp."})
    sound = Manifest(folder / "train.jsonl", sample_rate=24000)[0]
    assert (sound.sample_rate, len(sound.wav)) == (24000, 24000)


def test_any_order_and_any_process_give_the_same_sounds(folder):
    records = [{"audio": "ramp.wav", "caption": f"Ramp {'x' * i}.", "start": i / 50} for i in range(20)]
    manifest = manifest_of(folder, *records)
    captions = [manifest[i].caption for i in reversed(range(20))][::-1]
    assert captions == [record["caption"] for record in records]
    program = f"from ualm_jax.data.raw.manifest import Manifest; m = Manifest({str(manifest.path)!r}, 16000)\n"
    program += "print(len(m), m[13].caption, float(m[13].wav.sum()))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[0] == f"20 {captions[13]} {float(manifest[13].wav.sum())}"


def test_blank_lines_are_passed_over_and_lines_keep_their_numbers(folder):
    record = {"audio": "ramp.wav", "caption": "A ramp."}
    manifest = manifest_of(folder, "", record, "   ", record, "")
    assert [manifest[i].id for i in range(len(manifest))] == ["train:2", "train:4"]


def test_the_last_line_needs_no_line_end(folder):
    (folder / "train.jsonl").write_text('{"audio": "ramp.wav", "caption": "A ramp."}')
    assert Manifest(folder / "train.jsonl", 16000)[0].caption == "A ramp."


def test_memory_holds_positions_and_not_records(folder):
    manifest = manifest_of(folder, *[{"audio": "ramp.wav", "caption": "word " * 200}] * 1000)
    held = sum(value.nbytes for value in vars(manifest._records).values() if isinstance(value, np.ndarray))
    assert held == 24 * 1000
    assert not any(isinstance(value, list | dict | tuple) for value in vars(manifest._records).values())


GOOD = {"audio": "ramp.wav", "caption": "A ramp."}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"audio": "ramp.wav", ', r"line 2: not valid JSON"),
        ("[" * 100_000, r"line 2: not valid JSON"),
        ('["ramp.wav"]', r"line 2: expected a JSON object, found list"),
        ({"audio": "ramp.wav"}, r"line 2: the field 'caption' is missing"),
        ({"caption": "A ramp.", "id": "r7"}, r"line 2 \(id r7\): the field 'audio' is missing"),
        (GOOD | {"text": "?"}, r"line 2: unknown field 'text'; expected audio, caption, start, end, id"),
        (GOOD | {"caption": " "}, r"line 2: 'caption' must be a text that is not empty, found ' '"),
        (GOOD | {"caption": ["A ramp."]}, r"'caption' must be a text"),
        (GOOD | {"audio": 3}, r"'audio' must be a text"),
        (GOOD | {"id": 7}, r"'id' must be a text"),
        (GOOD | {"id": None}, r"'id' must be a text"),
        (GOOD | {"start": "0.5"}, r"'start' must be a number of seconds from 0 on, found '0.5'"),
        (GOOD | {"start": -1}, r"'start' must be a number of seconds from 0 on, found -1"),
        (GOOD | {"end": True}, r"'end' must be a number"),
        (GOOD | {"end": None}, r"'end' must be a number"),
        (GOOD | {"end": float("nan")}, r"'end' must be a number"),
        (GOOD | {"end": 10**400}, r"'end' must be a number"),
        (
            GOOD | {"start": 0.5, "end": 0.5, "id": "r7"},
            r"\(id r7\): 'start' must be before 'end', found 0.5 and 0.5",
        ),
        (GOOD | {"end": 0}, r"'start' must be before 'end', found 0 and 0"),
        (GOOD | {"start": 0.5, "end": 1.5}, r"line 2 \(id train:2\): .*outside the file, which lasts 1 s"),
        (GOOD | {"audio": "none.wav", "id": "r7"}, r"line 2 \(id r7\): .*none.wav: there is no such file"),
        (GOOD | {"audio": "cut.wav"}, r"line 2 \(id train:2\): .*cut.wav: truncated"),
        (GOOD | {"audio": "nan.wav"}, r"line 2 \(id train:2\): .*nan.wav: sample 70 is NaN or infinite"),
        (GOOD | {"audio": "train.jsonl"}, r"line 2 \(id train:2\): .*not a readable sound file"),
        (GOOD | {"audio": "../outside.wav"}, r"line 2 \(id train:2\): audio '../outside.wav' leads out of"),
        (GOOD | {"audio": "a/../../outside.wav"}, r"leads out of .*set; write an absolute path instead"),
    ],
)
def test_a_bad_record_says_its_line_and_reason_and_spares_its_neighbours(folder, record, reason):
    whole = (folder / "ramp.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    samples = np.zeros(160, np.float32)
    samples[70] = np.nan
    soundfile.write(folder / "nan.wav", samples, 16000, subtype="FLOAT")
    manifest = manifest_of(folder, GOOD, record, GOOD)
    with pytest.raises(BadRecord, match=reason):
        manifest[1]
    assert manifest[0].caption == manifest[2].caption == "A ramp."


def test_bytes_that_are_not_utf8_are_a_bad_record(folder):
    (folder / "train.jsonl").write_bytes(b'{"audio": "ramp.wav", "caption": "\xff"}\n')
    with pytest.raises(BadRecord, match="line 1: not valid JSON"):
        Manifest(folder / "train.jsonl", 16000)[0]


def test_absolute_paths_may_lie_anywhere(folder):
    manifest = manifest_of(folder, GOOD | {"audio": str(folder.parent / "outside.wav")})
    assert len(manifest[0].wav) == 16000


def test_a_root_replaces_the_manifests_folder(folder):
    manifest = manifest_of(folder, GOOD | {"audio": "outside.wav"}, GOOD | {"audio": "../x.wav"}, root=folder.parent)
    assert len(manifest[0].wav) == 16000
    with pytest.raises(BadRecord, match="leads out of"):
        manifest[1]


def test_a_missing_or_empty_manifest_is_refused_at_once(folder):
    with pytest.raises(UserError, match="none.jsonl: there is no such manifest"):
        Manifest(folder / "none.jsonl", 16000)
    with pytest.raises(UserError, match="train.jsonl: the manifest is empty"):
        manifest_of(folder, "", " ")


def test_the_fingerprint_follows_content_and_rate_and_not_place(folder):
    first = manifest_of(folder, GOOD).fingerprint()
    assert json.loads(json.dumps(first)) == first
    (folder / "moved").mkdir()
    assert manifest_of(folder / "moved", GOOD).fingerprint() == first
    assert manifest_of(folder, GOOD | {"caption": "Another."}).fingerprint() != first
    manifest_of(folder, GOOD)
    assert Manifest(folder / "train.jsonl", 24000).fingerprint() != first
