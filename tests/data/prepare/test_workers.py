"""Whoever reads the sounds, one process, several or other machines: the dataset is the same."""

import json
import os
import pickle
import signal
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from helpers.fake_sounds import FakeCodec, FakeSource, conversations, prepare_fake_sounds
from helpers.folders import contents, quarantine

from ualm_jax.data.dataset.codec_sound import CodecShape
from ualm_jax.data.prepare.config import PrepareConfig
from ualm_jax.data.prepare.examples import RawReader
from ualm_jax.data.prepare.filters import Filters
from ualm_jax.data.prepare.partial import PartialDataset
from ualm_jax.data.prepare.shard_job import ShardJob
from ualm_jax.data.prepare.workers import run_shards
from ualm_jax.data.raw.conversation import CaptionedConversations
from ualm_jax.data.raw.formats import JsonConversations
from ualm_jax.data.raw.hugging_face import HubSounds
from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.data.raw.soundscript import SoundScript
from ualm_jax.data.raw.webdataset import WebDatasetSounds
from ualm_jax.errors import UserError


def test_worker_processes_make_the_same_dataset(parts, sounds, tmp_path):
    info = prepare_fake_sounds(FakeSource(100), parts, tmp_path / "fake", shard_size=15, workers=2)
    assert contents(info.directory) == contents(sounds.directory)


@pytest.mark.slow  # as every test that starts processes: they import for seconds
def test_bad_records_of_all_workers_count(parts, tmp_path):
    faults = {1: "nan", 3: "empty", 12: "missing"}
    with pytest.raises(UserError, match=r"3 of 20 records .* allowed are 10\.0%"):
        prepare_fake_sounds(
            FakeSource(20, faults), parts, tmp_path / "out", shard_size=5, max_bad_fraction=0.1, workers=2
        )
    assert [entry["index"] for entry in quarantine(tmp_path / "out.partial")] == [1, 3, 12]
    prepare_fake_sounds(FakeSource(20), parts, tmp_path / "out", shard_size=5)
    prepare_fake_sounds(FakeSource(20), parts, tmp_path / "clean", shard_size=5)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


class Deadly(FakeSource):
    def __getitem__(self, index):
        if index == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_sentence(parts, tmp_path):
    work = PartialDataset(tmp_path / "out.partial")
    work.begin({}, 4)
    reader = RawReader(conversations(Deadly(20)), parts / "tokenizer", CodecShape.of(FakeCodec()))
    job = ShardJob(work, reader, Filters(), shard_size=5)
    with pytest.raises(UserError, match="a worker process has been killed"):
        list(run_shards(job, range(4), workers=2, advance=lambda conversations, seconds: None))


PROCESSES = ["direct_num_workers=2", "direct_running_mode=multi_processing"]


@pytest.mark.parametrize("options", [[], pytest.param(PROCESSES, marks=pytest.mark.slow)])
def test_a_beam_pipeline_makes_the_same_dataset(parts, sounds, tmp_path, options):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    source = FakeSource(100)
    info = prepare_fake_sounds(source, parts, tmp_path / "fake", shard_size=15, beam=["runner=DirectRunner", *options])
    assert not source.read, "the pipeline reads copies of the source"
    assert contents(info.directory) == contents(sounds.directory)


def test_a_beam_pipeline_goes_on_where_a_process_was(parts, sounds, tmp_path):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    with pytest.raises(KeyboardInterrupt):
        prepare_fake_sounds(Stopping(100), parts, tmp_path / "fake", shard_size=15)
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("fake.partial/progress/train.*")}
    assert done
    info = prepare_fake_sounds(FakeSource(100), parts, tmp_path / "fake", shard_size=15, beam=[])
    assert contents(info.directory) == contents(sounds.directory)
    assert {path.name: time for path, time in done.items()}.items() <= {
        path.name: path.stat().st_mtime_ns for path in info.directory.iterdir()
    }.items()


class Stopping(FakeSource):
    def __getitem__(self, index):
        if index == 50:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_without_beam_its_extra_is_named(parts, tmp_path):
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"pip install '.\[beam\]'"):
            prepare_fake_sounds(FakeSource(3), parts, tmp_path / "out", beam=[])
    else:
        pytest.skip("Apache Beam is installed")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """One sound in every form that a source reads."""
    folder = tmp_path_factory.mktemp("raw")
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32)
    soundfile.write(folder / "a.flac", wav, 16000)
    (folder / "a.txt").write_text("A hiss.")
    (folder / "manifest.jsonl").write_text(json.dumps({"audio": "a.flac", "caption": "A hiss."}))
    (folder / "generation.jsonl").write_text(json.dumps({"location": "a.flac", "caption": "A hiss."}))
    with tarfile.open(folder / "a.tar", "w") as tar:
        tar.add(folder / "a.flac", "a.flac")
        tar.add(folder / "a.txt", "a.txt")
    sound = {"bytes": (folder / "a.flac").read_bytes(), "path": "a.flac"}
    pyarrow.parquet.write_table(pyarrow.table({"audio": [sound], "text": ["A hiss."]}), folder / "a.parquet")
    return folder


SOURCES = {
    "soundscript": lambda folder: SoundScript(3, 0),
    "manifest": lambda folder: Manifest(folder / "manifest.jsonl", 16000),
    "generation": lambda folder: JsonConversations(folder / "generation.jsonl", "generation"),
    "webdataset": lambda folder: WebDatasetSounds(folder / "a.tar", 16000),
    "hf": lambda folder: HubSounds(folder / "a.parquet", 16000),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_gives_the_same_in_another_process(raw, name):
    source = SOURCES[name](raw)
    if name != "generation":
        source = CaptionedConversations(source, "caption_to_audio")
    source[0]  # what it keeps open now does not go along
    other = pickle.loads(pickle.dumps(source))
    assert other.fingerprint() == source.fingerprint() and len(other) == len(source)
    for message, again in zip(source[0].messages, other[0].messages, strict=True):
        assert (message.role, message.modality) == (again.role, again.modality)
        if isinstance(message.content, str):
            assert message.content == again.content
        else:
            np.testing.assert_array_equal(message.content.read(16000), again.content.read(16000))


def test_no_worker_is_no_setting(parts, tmp_path):
    with pytest.raises(UserError, match="workers must be at least 1"):
        PrepareConfig(out=tmp_path / "out", tokenizer_dir=parts / "tokenizer", workers=0)
