"""Sounds kept inside Parquet and Arrow files, as on the Hugging Face hub and as `datasets` saves them."""

import io

import numpy as np
import pytest
import soundfile
from helpers.fake_sounds import prepare_fake

from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.raw.conversation import CaptionedConversations
from ualm_jax.data.raw.files import open_binary
from ualm_jax.data.raw.hugging_face import HubSounds
from ualm_jax.data.raw.sound_source import BadRecord, SoundSource
from ualm_jax.data.raw.webdataset import WebDatasetSounds
from ualm_jax.errors import UserError


def encoded(index: int, format: str = "FLAC") -> bytes:
    file = io.BytesIO()
    wav = np.random.default_rng(index).uniform(-0.5, 0.5, 1600).astype(np.float32)
    soundfile.write(file, wav, 16000, format=format)
    return file.getvalue()


def decoded(index: int) -> np.ndarray:
    return soundfile.read(io.BytesIO(encoded(index)), dtype="float32")[0]


@pytest.fixture
def hub(tmp_path):
    """A folder of two Parquet files with small row groups; one row has a path, one is damaged, one has no text."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "data" / "beside.flac").write_bytes(encoded(3))
    for part in range(2):
        rows = range(6 * part, 6 * part + 6)
        audio = [{"bytes": encoded(index), "path": None} for index in rows]
        if part == 0:
            audio[3] = {"bytes": None, "path": "beside.flac"}
            audio[4] = {"bytes": b"no sound", "path": None}
        texts = [f"noise {index}" if index != 5 else "" for index in rows]
        table = arrow.table({"audio": audio, "text": texts, "key": [f"k{index}" for index in rows], "more": [1] * 6})
        parquet.write_table(table, tmp_path / "hub" / "data" / f"train-{part:05d}.parquet", row_group_size=4)
    return tmp_path / "hub"


def test_parquet_rows_are_sounds(hub):
    sounds = HubSounds(hub, 16000)
    assert isinstance(sounds, SoundSource) and len(sounds) == 12
    for index in (0, 11, 3, 7, 6):
        assert (sounds[index].id, sounds[index].caption) == (f"hub:{index + 1}", f"noise {index}")
        np.testing.assert_array_equal(sounds[index].wav, decoded(index))
    assert HubSounds(hub, 16000, id="key")[7].id == "k7"
    with pytest.raises(IndexError):
        sounds[12]


def test_what_datasets_saves_to_disk_is_read_the_same_way(hub, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "disk").mkdir()
    table = parquet.read_table(hub / "data" / "train-00001.parquet")
    with arrow.ipc.new_stream(str(tmp_path / "disk" / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    sounds = HubSounds(tmp_path / "disk", 16000)
    assert [sounds[index].caption for index in range(len(sounds))] == [f"noise {index}" for index in range(6, 12)]
    np.testing.assert_array_equal(sounds[2].wav, decoded(8))


def test_what_is_wrong_with_a_row_names_it(hub):
    sounds = HubSounds(hub, 16000)
    with pytest.raises(BadRecord, match=r"train-00000.parquet row 5 of all .*not a readable sound file"):
        sounds[4]
    with pytest.raises(BadRecord, match=r"row 6 of all \(id hub:6\): 'text' must be a text"):
        sounds[5]
    with pytest.raises(UserError, match="has no column 'caption'; its columns are audio, text, key, more"):
        HubSounds(hub, 16000, caption="caption")
    with pytest.raises(UserError, match="holds no data set"):
        HubSounds(hub / "none", 16000)
    (hub / "data" / "train-00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="train-00001.parquet: not a readable data file"):
        HubSounds(hub, 16000)


def test_parquet_is_read_from_urls_too(hub):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    place = hub.parent.name  # all tests share this file system
    memory.put(str(hub), f"/{place}/raw", recursive=True)
    rows = HubSounds(f"memory://{place}/raw", 16000)
    assert len(rows) == 12 and rows.fingerprint() == HubSounds(hub, 16000).fingerprint()
    for index in (0, 3, 11):  # 3 lies in a file beside
        np.testing.assert_array_equal(rows[index].wav, decoded(index))
    assert len(HubSounds(f"memory://{place}/raw/data/train-00001.parquet", 16000)) == 6
    with pytest.raises(UserError, match="none.parquet: not a readable data file"):
        HubSounds(f"memory://{place}/none.parquet", 16000)
    with pytest.raises(UserError, match="memory://none: holds no data set"):
        HubSounds("memory://none", 16000)


def test_a_url_that_nothing_installed_opens_is_one_sentence():
    pytest.importorskip("fsspec")
    for opened in (lambda url: HubSounds(url, 16000), lambda url: WebDatasetSounds(url, 16000), open_binary):
        with pytest.raises(UserError, match="nowhere://set.*: can not be opened .*; URLs need `pip install"):
            opened("nowhere://set")


def test_arrow_files_must_lie_on_a_disk(hub):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe("/arrow/data.arrow", b"")
    with pytest.raises(UserError, match="data.arrow: Arrow files are memory-mapped and must lie on a disk"):
        HubSounds("memory://arrow", 16000)


@pytest.mark.parametrize("name", ["train[0].parquet", "rows.pq"])
def test_a_file_that_is_named_is_read_whatever_its_name(hub, name):
    (hub / "data" / "train-00000.parquet").rename(hub / "data" / name)
    assert len(HubSounds(hub / "data" / name, 16000)) == 6


def test_rows_become_a_dataset(hub, parts, tmp_path):
    source = CaptionedConversations(HubSounds(hub, 16000), "caption_to_audio")
    info = prepare_fake(source, parts, tmp_path / "out", max_bad_fraction=0.5)
    assert info.records == 10 and open_records(info)[0].caption == "noise 0"
