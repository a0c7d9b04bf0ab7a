"""What is damaged or does not fit is noticed before or while it is read, and named."""

import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys

import pytest
from helpers.batches import assert_same
from helpers.fake_sounds import FakeSource, prepare_fake

from ualm_jax.cli.main import run
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.errors import UserError


def test_what_does_not_fit_is_refused_at_the_start(dataset, config):
    made = dataset.vocabulary
    with pytest.raises(UserError, match=rf"has {dataset.longest} positions.*seq_len is 80"):
        make_loader(dataclasses.replace(config, seq_len=80), made)
    for field, value in [("num_codebooks", 4), ("codebook_size", 1024), ("text_size", 255)]:
        other = dataclasses.replace(made, **{field: value})
        with pytest.raises(UserError, match=f"{dataset.directory}.*{getattr(made, field)}.*{value}"):
            make_loader(config, other)
    with pytest.raises(UserError, match="batch_size 4 can not be divided among 3 processes"):
        make_loader(config, made, process_count=3)
    with pytest.raises(UserError, match="no dataset here"):
        make_loader(dataclasses.replace(config, directory=str(dataset.directory / "tokenizer")), made)


def truncate(shard):
    os.truncate(shard, shard.stat().st_size // 2)


def flip_a_bit(shard):
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)


def swap(shard):
    shutil.copyfile(shard.parent / "train.array_record-00006-of-00007", shard)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, swap])
def test_damaged_shards_are_noticed(dataset, tmp_path, damage):
    copy = shutil.copytree(dataset.directory, tmp_path / "copy")
    damage(copy / "train.array_record-00003-of-00007")
    with pytest.raises(UserError, match=f"{copy}: a shard is damaged"):
        records = open_records(open_dataset(copy))
        for index in range(dataset.records):
            records[index]


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(dataset, config, load, caplog):
    whole = load(config, 6)
    iterator = make_loader(dataclasses.replace(config, num_workers=1, prefetch=1), dataset.vocabulary)
    found = [next(iterator)]
    (worker,) = iterator._executor._processes
    os.kill(worker, signal.SIGKILL)
    found += itertools.islice(iterator, 5)
    assert_same(found, whole)
    assert "A worker process that reads data has been killed" in caplog.text
    iterator.close()


def cut(path):
    os.truncate(path, path.stat().st_size - 30)


def garbage(path):
    path.write_bytes(b"no array" * 20)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("damage, message", [(cut, "is no NumPy file, or cut"), (garbage, "is no"), (flip, "tell of")])
def test_damaged_lengths_are_noticed_at_the_start(dataset, config, tmp_path, damage, message):
    copy = shutil.copytree(dataset.directory, tmp_path / "copy")
    damage(copy / "lengths.npy")
    with pytest.raises(UserError, match=f"{copy}.*{message}.*the dataset is damaged"):
        make_loader(dataclasses.replace(config, directory=str(copy)), dataset.vocabulary)


def test_damaged_lengths_are_not_shown_either(dataset, tmp_path, capsys):
    copy = shutil.copytree(dataset.directory, tmp_path / "copy")
    flip(copy / "lengths.npy")
    assert run(["data", "inspect", str(copy), "--out", str(tmp_path / "look")]) == 1
    said = capsys.readouterr()
    assert "tell of" in said.err and said.err.count("\n") == 1 and said.out == "" and not (tmp_path / "look").exists()


def test_few_open_files_are_enough_for_many_shards(parts, tmp_path):
    """Of all datasets together, half of the files that the process may open stay open."""
    datasets = [prepare_fake(FakeSource(60 + i), parts, tmp_path / f"many{i}", shard_size=1) for i in range(2)]
    program = (
        "import sys\n"
        "from ualm_jax.data.dataset.folder import open_dataset, open_records\n"
        "for directory in sys.argv[1:]:\n"
        "    records = open_records(open_dataset(directory))\n"
        "    for index in range(len(records)): records[index]\n"
        "print('read')"
    )
    folders = " ".join(str(info.directory) for info in datasets)
    command = f'ulimit -n 64; exec {sys.executable} -c "{program}" {folders}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "read\n", done.stderr
