"""Sounds become a dataset: each exactly once, whatever goes wrong on the way."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import killed_jobs
from helpers.fake_sounds import FakeCodec, FakeSource, encode_fake, prepare_fake, prepare_fake_sounds
from helpers.folders import contents, quarantine
from rich.console import Console

from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.prepare.config import PrepareConfig
from ualm_jax.data.prepare.job import prepare
from ualm_jax.data.raw.conversation import CaptionedConversations
from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.data.raw.soundscript import SoundScript
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.tokenizer import load_tokenizer


def test_every_sound_is_stored_once_in_the_order_of_the_source(dataset):
    source, tokenizer = FakeSource(100), load_tokenizer(dataset.directory / "tokenizer")
    records = open_records(dataset)
    assert len(records) == len(source)
    for index in range(len(source)):
        record, sound = records[index], source[index]
        assert (record.id, record.source) == (sound.id, "fake")
        assert (record.caption, record.scene) == (sound.caption, sound.scene)
        text, audio = record.messages
        assert (text.role, text.modality) == ("user", "text")
        assert (audio.role, audio.modality) == ("assistant", "discrete_audio")
        assert text.content.tolist() == tokenizer.encode(sound.caption)
        whole = len(sound.wav) // FakeCodec.hop * FakeCodec.hop
        np.testing.assert_array_equal(audio.content, FakeCodec().encode(sound.wav[:whole]))


def test_a_dataset_describes_itself(dataset):
    records = [open_records(dataset)[index] for index in range(100)]
    lengths = [len(build_grid(record.messages, dataset.vocabulary).tokens) for record in records]
    assert [record.length for record in records] == lengths
    assert (dataset.positions, dataset.longest) == (sum(lengths), max(lengths))
    assert (dataset.records, dataset.quarantined) == (100, 0)
    assert dataset.text_tokens == sum(len(record.messages[0].content) for record in records)
    frames = sum(len(record.messages[1].content) for record in records)
    assert dataset.audio_hours == pytest.approx(frames / dataset.frame_rate / 3600)
    assert {"grain", "ualm_jax"} <= set(dataset.versions)
    assert [shard.name for shard in dataset.shards] == [f"train.array_record-{n:05d}-of-00007" for n in range(7)]
    described = json.loads((dataset.directory / "dataset.json").read_text())
    for shard in described["shards"]:
        stored = (dataset.directory / shard["name"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(stored).hexdigest()
    assert (dataset.directory / "codec" / "config.json").is_file()
    assert not list(dataset.directory.parent.glob("*.partial"))


def test_bad_sounds_are_counted_and_named_and_the_rest_is_stored(parts, tmp_path):
    faults = {0: "missing", 7: "nan", 20: "empty", 21: "short", 29: "surrogate"}
    info = prepare_fake(FakeSource(30, faults), parts, tmp_path / "out", shard_size=8, max_bad_fraction=0.2)
    assert (info.records, info.quarantined) == (25, 5)
    found = quarantine(info.directory)
    assert [entry["index"] for entry in found] == list(faults)
    assert [entry["id"] for entry in found] == [None, "clip-7", "clip-20", "clip-21", "clip-29"]
    words = ["no such file", "1 of", "text is empty", "15 samples", "surrogate"]
    for entry, word in zip(found, words, strict=True):
        assert word in entry["reason"] and f"{entry['index']}" in entry["reason"]
    records = open_records(info)
    kept = [int(records[index].id.removeprefix("clip-")) for index in range(len(records))]
    assert sorted(kept + list(faults)) == list(range(30)) and kept == sorted(kept)


def test_a_shard_may_end_up_empty(parts, tmp_path):
    faults = dict.fromkeys(range(4, 8), "nan")
    info = prepare_fake(FakeSource(10, faults), parts, tmp_path / "out", shard_size=4, max_bad_fraction=0.5)
    ids = [open_records(info)[index].id for index in range(info.records)]
    assert ids == [f"clip-{n}" for n in (0, 1, 2, 3, 8, 9)]


def test_too_many_bad_sounds_stop_the_work_until_they_are_mended(parts, tmp_path):
    out, faults = tmp_path / "out", {1: "nan", 3: "empty", 12: "missing"}
    with pytest.raises(UserError, match=r"3 of 20 records .* allowed are 10\.0%; .*quarantine\.jsonl"):
        prepare_fake(FakeSource(20, faults), parts, out, shard_size=5, max_bad_fraction=0.1)
    (found,) = (tmp_path / "out.partial").rglob("quarantine.jsonl")
    assert [entry["index"] for entry in quarantine(found.parent)] == [1, 3, 12]
    assert not out.exists()
    prepare_fake(FakeSource(20), parts, out, shard_size=5)
    prepare_fake(FakeSource(20), parts, tmp_path / "clean", shard_size=5)
    assert contents(out) == contents(tmp_path / "clean")


def test_nothing_usable_is_no_dataset(parts, tmp_path):
    with pytest.raises(UserError, match="2 of 2 records are unusable"):
        prepare_fake(FakeSource(2, {0: "nan", 1: "nan"}), parts, tmp_path / "out", max_bad_fraction=1.0)
    with pytest.raises(UserError, match="holds no records"):
        prepare_fake(FakeSource(0), parts, tmp_path / "out")


class Killed(BaseException):
    """Stands for the end of the process."""


def let_live(patch: pytest.MonkeyPatch, steps: int) -> None:
    """The process dies when it renames, copies or removes for the (steps + 1)th time."""
    left = iter(range(steps))

    def mortal(do):
        def step(*args, **kwargs):
            if next(left, None) is None:
                raise Killed
            return do(*args, **kwargs)

        return step

    for module, name in [(os, "replace"), (shutil, "copytree"), (shutil, "rmtree")]:
        patch.setattr(module, name, mortal(getattr(module, name)))


def test_a_kill_at_any_step_does_not_show_in_the_result(parts, tmp_path, monkeypatch):
    source = FakeSource(12, {5: "nan"})
    options = {"shard_size": 4, "max_bad_fraction": 0.5}
    prepare_fake(source, parts, tmp_path / "clean", **options)
    for steps in range(100):
        out = tmp_path / f"out{steps}"
        with monkeypatch.context() as patch:
            let_live(patch, steps)
            try:
                prepare_fake(source, parts, out, **options)
                break
            except Killed:
                pass
        assert not out.exists()
        prepare_fake(source, parts, out, **options)
        assert contents(out) == contents(tmp_path / "clean")
    assert 10 <= steps < 99
    assert contents(out) == contents(tmp_path / "clean")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
@pytest.mark.parametrize("job", ["prepare", "encode"])
def test_a_real_kill_at_a_random_moment_does_not_show_in_the_result(parts, sounds, dataset, tmp_path, job, seed):
    """Nor does it leave worker processes behind, or work to be done again that was finished."""
    rng, partial, out = np.random.default_rng(seed), tmp_path / "fake.partial", tmp_path / "fake"
    finished, delay = rng.integers(0, 7), rng.uniform(0, 0.3)
    process = subprocess.Popen([sys.executable, killed_jobs.__file__, job, sounds.directory, parts, out])
    while process.poll() is None and len(list(partial.glob("progress/0*.json"))) < finished:
        time.sleep(0.005)
    time.sleep(delay)
    workers = children(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives the job"
        time.sleep(0.05)
    if not out.exists():
        source = FakeSource(100)
        done = {int(path.stem) for path in partial.glob("progress/0*.json")}
        if job == "prepare":
            prepare_fake_sounds(source, parts, out, shard_size=15)
            assert not {index // 15 for index in source.read} & done
        else:
            encode_fake(sounds.directory, parts, out)
    assert contents(out) == contents((sounds if job == "prepare" else dataset).directory)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def test_a_partial_dataset_is_only_continued_with_what_began_it(parts, tmp_path):
    out, faults = tmp_path / "out", {0: "nan"}
    with pytest.raises(UserError, match="1 of 10 records"):
        prepare_fake(FakeSource(10, faults), parts, out, shard_size=5)
    with pytest.raises(UserError, match="begun with another source; finish it"):
        prepare_fake(FakeSource(11), parts, out, shard_size=5)
    with pytest.raises(UserError, match="begun with another source, shard_size;"):
        prepare_fake(FakeSource(10), parts, out, shard_size=4, task="transcription_to_speech")
    other = shutil.copytree(parts, tmp_path / "other")
    (other / "tokenizer" / "more.json").write_text("{}")
    with pytest.raises(UserError, match="begun with another tokenizer;"):
        prepare_fake(FakeSource(10), other, out, shard_size=5)


def test_nothing_that_exists_is_overwritten(parts, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="out: exists already"):
        prepare_fake(FakeSource(3), parts, tmp_path / "out")
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"new\.partial: in the way"):
        prepare_fake(FakeSource(3), parts, tmp_path / "new")


def test_settings_that_can_not_be_are_refused(parts, tmp_path):
    with pytest.raises(UserError, match="task must be"):
        prepare_fake(FakeSource(3), parts, tmp_path / "b", task="text_only")
    with pytest.raises(UserError, match="shard_size"):
        prepare_fake(FakeSource(3), parts, tmp_path / "c", shard_size=0)


def test_progress_is_plain_lines_where_there_is_no_terminal(parts, tmp_path):
    log = io.StringIO()
    prepare_fake(FakeSource(20), parts, tmp_path / "out", console=Console(file=log, width=40))
    sounds, waiting, codes = log.getvalue().splitlines()
    for line, what in ((sounds, "sounds"), (codes, "codes")):
        assert line.startswith(f"{what}: 20 of 20 conversations in ") and "s of audio per second" in line
    assert waiting == "codes: the codec is compiled first"


def test_the_real_codec_gives_each_clip_its_own_codes(parts, golden_dir, tmp_path):
    from ualm_jax.codecs.xcodec.model import XCodec

    source = SoundScript(count=3, seed=5, min_seconds=0.5, max_seconds=0.6)
    config = PrepareConfig(out=tmp_path / "out", tokenizer_dir=golden_dir / "qwen2", codec_dir=golden_dir / "xcodec")
    info = prepare(CaptionedConversations(source, "caption_to_audio"), config)
    codec = XCodec.from_directory(info.directory / "codec")
    for index in range(3):
        record, wav = open_records(info)[index], source[index].wav
        whole = wav[: len(wav) // codec.hop * codec.hop]
        np.testing.assert_array_equal(record.messages[1].content, codec.encode(whole))
        assert record.scene == source[index].scene


def test_every_fault_of_a_manifest_ends_in_quarantine(parts, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32)
    soundfile.write(tmp_path / "good.wav", noise, 16000)
    soundfile.write(tmp_path / "cut.wav", noise, 16000)
    os.truncate(tmp_path / "cut.wav", 1000)
    soundfile.write(tmp_path / "nan.wav", np.where(noise > 0.4, np.nan, noise), 16000, subtype="FLOAT")
    lines = [
        {"audio": "good.wav", "caption": "A hiss."},
        {"audio": "missing.wav", "caption": "A hiss."},
        {"audio": "cut.wav", "caption": "A hiss."},
        {"audio": "nan.wav", "caption": "A hiss."},
        {"audio": "good.wav", "caption": ""},
        {"audio": "good.wav", "captoin": "A hiss."},
        {"audio": "good.wav", "caption": "Another hiss.", "start": 0.05},
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = Manifest(tmp_path / "list.jsonl", sample_rate=16000)
    info = prepare_fake(source, parts, tmp_path / "out", max_bad_fraction=0.8)
    assert (info.records, info.quarantined) == (2, 5)
    found = quarantine(info.directory)
    assert [entry["index"] for entry in found] == [1, 2, 3, 4, 5]
    for entry in found:
        assert f"line {entry['index'] + 1}" in entry["reason"] and "\n" not in entry["reason"]


def describe(directory, field, value):
    content = json.loads((directory / "dataset.json").read_text())
    (directory / "dataset.json").write_text(json.dumps(content | {field: value}))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda d: (d / "dataset.json").unlink(), "no dataset here"),
        (lambda d: (d / "dataset.json").write_text("{"), "damaged, it is no JSON"),
        (lambda d: (d / "dataset.json").write_text("[]"), "expected an object with the field format"),
        (lambda d: (d / "dataset.json").write_text('{"format": 99}'), "has format 99, expected 2 or 3"),
        (lambda d: (d / "dataset.json").write_text('{"format": 3}'), "damaged, the field made_from is missing"),
        (lambda d: describe(d, "counts", []), r"damaged, the field counts must be an object, found \[\]"),
        (lambda d: describe(d, "shards", [{"nmae": ""}]), "damaged, the field shards.0.name is missing"),
        (lambda d: describe(d, "vocabulary", {"text_size": "many"}), "vocabulary.text_size must be a valid integer"),
        (
            lambda d: (d / "train.array_record-00003-of-00007").unlink(),
            "00003-of-00007: this file of the dataset is missing",
        ),
    ],
)
def test_a_damaged_dataset_says_what_is_wrong(dataset, tmp_path, damage, message):
    copy = shutil.copytree(dataset.directory, tmp_path / "copy")
    damage(copy)
    with pytest.raises(UserError, match=message):
        open_dataset(copy)
