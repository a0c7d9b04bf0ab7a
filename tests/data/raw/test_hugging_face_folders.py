"""A folder that the library `datasets` or the hub left: what it describes is read, all of it and nothing else."""

import json
import shutil

import pytest
from helpers.sound_files import sound_file, tones

from ualm_jax.data.raw.hugging_face import HubSounds
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError

arrow = pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")
SOUND = sound_file(tones(300, seconds=0.1), "FLAC")


def rows(*captions: str, **columns) -> dict:
    return {"audio": [{"bytes": SOUND, "path": None}] * len(captions), "text": list(captions)} | columns


def parquet(path, *captions: str, **columns):
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(arrow.table(rows(*captions, **columns)), path)
    return path.parent


def captions(path, **options) -> list[str]:
    sounds = HubSounds(path, 16000, **options)
    return [sounds[index].caption for index in range(len(sounds))]


def passed_over(path, **options) -> dict[str, str]:
    return {each.name.rpartition("/")[2]: each.reason for each in HubSounds(path, 16000, **options).left_out}


@pytest.fixture
def saved():
    return datasets.Dataset.from_dict(rows("a", "b", "c", "d"))


def test_what_map_leaves_beside_the_data_is_passed_over(saved, tmp_path):
    saved.save_to_disk(tmp_path / "set", num_shards=2)
    mapped = datasets.load_from_disk(tmp_path / "set").map(lambda row: {"text": row["text"].upper()})
    assert len(list((tmp_path / "set").glob("*.arrow"))) == 3 and mapped[0]["text"] == "A"
    assert captions(tmp_path / "set") == ["a", "b", "c", "d"]
    (reason,) = passed_over(tmp_path / "set").values()
    assert reason == "no part of the data set that the folder describes"
    with pytest.raises(UserError, match=r"has no split 'test'; it has train"):
        HubSounds(tmp_path / "set", 16000, split="test")


def test_cache_files_are_no_data_where_nothing_describes_the_folder_either(tmp_path):
    for name in ("data-00000-of-00001.arrow", "cache-0f.arrow"):
        table = arrow.table(rows(name))
        with arrow.ipc.new_stream(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    assert captions(tmp_path) == ["data-00000-of-00001.arrow"] and list(passed_over(tmp_path)) == ["cache-0f.arrow"]


def test_rows_are_in_the_order_in_which_they_were_saved(saved, tmp_path):
    saved.select([3, 1, 0]).save_to_disk(tmp_path / "set")
    assert captions(tmp_path / "set") == ["d", "b", "a"]


def test_a_saved_folder_with_a_file_missing_is_refused(saved, tmp_path):
    saved.save_to_disk(tmp_path / "set", num_shards=2)
    (tmp_path / "set" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match="data-00001-of-00002.arrow: this file of the data set is missing"):
        HubSounds(tmp_path / "set", 16000)


def test_of_a_saved_dict_a_split_is_asked_for(saved, tmp_path):
    datasets.DatasetDict(train=saved, held=saved.select([2])).save_to_disk(tmp_path / "both")
    with pytest.raises(UserError, match=r"both: holds several splits \(train, held\); name one with --split"):
        HubSounds(tmp_path / "both", 16000)
    assert captions(tmp_path / "both", split="held") == ["c"]
    assert captions(tmp_path / "both", split="train") == captions(tmp_path / "both" / "train") == ["a", "b", "c", "d"]
    assert passed_over(tmp_path / "both", split="held") == {
        "data-00000-of-00001.arrow": "of the split 'train', which was not asked for"
    }
    (tmp_path / "both" / "dataset_dict.json").unlink()
    with pytest.raises(UserError, match="holds data sets that were saved each by itself; name one of .*held, .*train"):
        HubSounds(tmp_path / "both", 16000)
    shutil.rmtree(tmp_path / "both" / "held")
    (tmp_path / "both" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "held"]}))
    with pytest.raises(UserError, match="names the split 'held', but held/state.json is missing"):
        HubSounds(tmp_path / "both", 16000, split="train")


def test_a_folder_of_the_librarys_cache_is_read(tmp_path):
    parquet(tmp_path / "raw" / "train.parquet", "a", "b")
    parquet(tmp_path / "raw" / "test.parquet", "c")
    loaded = datasets.load_dataset(str(tmp_path / "raw"), cache_dir=str(tmp_path / "cache"))
    loaded["train"].map(lambda row: {"text": row["text"] + "!"})
    folder = tmp_path / loaded["train"].cache_files[0]["filename"].rpartition("/")[0]
    with pytest.raises(UserError, match=r"holds several splits \(test, train\)|holds several splits \(train, test\)"):
        HubSounds(folder, 16000)
    assert captions(folder, split="train") == ["a", "b"] and captions(folder, split="test") == ["c"]
    assert "no part of the data set that the folder describes" in passed_over(folder, split="test").values()


NAMES = {
    "hub": [
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
    ],
    "flat": ["train_0.parquet", "train_1.parquet", "dev.parquet"],
    "folders": ["train/0.parquet", "train/1.parquet", "valid/0.parquet"],
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_files_and_folders_say_what_belongs_to_which_split(tmp_path, kind):
    for name, caption in zip(NAMES[kind], "abc", strict=True):
        parquet(tmp_path / "set" / name, caption)
    with pytest.raises(UserError, match="holds several splits"):
        HubSounds(tmp_path / "set", 16000)
    assert captions(tmp_path / "set", split="train") == ["a", "b"]


def test_files_without_a_split_in_their_names_are_one(tmp_path):
    for name in ("1.parquet", "0.parquet", "more/2.parquet"):
        parquet(tmp_path / "set" / name, name[-9])
    assert sorted(captions(tmp_path / "set")) == ["0", "1", "2"] and passed_over(tmp_path / "set") == {}


def test_a_file_that_no_split_holds_is_told(tmp_path):
    parquet(tmp_path / "set" / "train-00000-of-00001.parquet", "a")
    parquet(tmp_path / "set" / "extra.parquet", "b")
    assert captions(tmp_path / "set") == ["a"]
    assert passed_over(tmp_path / "set") == {"extra.parquet": "no part of the data set that the folder describes"}


README = """---
configs:
- config_name: small
  data_files:
  - split: train
    path: s/*
- config_name: large
  data_files:
  - split: train
    path: [l/0.parquet]
  - split: test
    path: l/1.parquet
---
# A data set
"""


def test_what_the_readme_says_comes_first(tmp_path):
    for name, caption in (("s/0", "a"), ("l/0", "b"), ("l/1", "c"), ("l/2", "d")):
        parquet(tmp_path / "set" / f"{name}.parquet", caption)
    (tmp_path / "set" / "README.md").write_text(README)
    with pytest.raises(UserError, match=r"several splits \(small/train, large/train, large/test\)"):
        HubSounds(tmp_path / "set", 16000)
    assert captions(tmp_path / "set", split="large/train") == ["b"]
    assert passed_over(tmp_path / "set", split="large/train")["2.parquet"].startswith("no part of the data set")
    (tmp_path / "set" / "README.md").write_text(README.replace("s/*", "none/*"))
    with pytest.raises(UserError, match="its split 'small/train' has no Parquet or Arrow file"):
        HubSounds(tmp_path / "set", 16000, split="small/train")
    (tmp_path / "set" / "README.md").write_text(README.replace("s/*", "{a: b}"))
    with pytest.raises(UserError, match="what belongs to which split is not clear"):
        HubSounds(tmp_path / "set", 16000)


def test_columns_that_are_not_used_are_named_and_those_of_time_are_not_ignored(tmp_path):
    more = {"duration": [0.1, 0.1, 9.0], "begin_time": [None, None, 3.0], "speaker": ["x", "y", "z"]}
    parquet(tmp_path / "set" / "train.parquet", "a", "b", "c", **more, meta=[{"offset": 1}, {"offset": None}, None])
    assert passed_over(tmp_path / "set") == {
        f"train.parquet column {name!r}": "this column is not used" for name in ("begin_time", "speaker", "meta")
    }
    sounds = HubSounds(tmp_path / "set", 16000)
    assert sounds[1].caption == "b"
    with pytest.raises(BadRecord, match="row 1 of all .*unknown field 'meta.offset'"):
        sounds[0]
    with pytest.raises(BadRecord, match="row 3 of all .*unknown field 'begin_time'"):
        sounds[2]
    sounds = HubSounds(tmp_path / "set", 16000, ignore=["begin_time", "meta"])
    assert sounds[0].caption == "a"
    with pytest.raises(BadRecord, match="lasts 0.1 s, but its record says 'duration' 9"):
        sounds[2]


def test_a_damaged_part_is_a_bad_record_and_not_the_end(tmp_path):
    folder = parquet(tmp_path / "set" / "train.parquet", "a", "b")
    data = bytearray((folder / "train.parquet").read_bytes())
    data[4:200] = bytes(196)
    (folder / "train.parquet").write_bytes(data)
    with pytest.raises(BadRecord, match="train.parquet row 2 of all: can not be read"):
        HubSounds(folder, 16000)[1]


def test_an_arrow_file_of_either_kind_is_read(tmp_path):
    table = arrow.table(rows("a", "b"))
    for new, name in ((arrow.ipc.new_file, "file.arrow"), (arrow.ipc.new_stream, "stream.arrow")):
        with new(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
        assert captions(tmp_path / name) == ["a", "b"]
    with pytest.raises(UserError, match="is one file, of which all is read"):
        HubSounds(tmp_path / "file.arrow", 16000, split="train")
