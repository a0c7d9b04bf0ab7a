"""Batches hold every conversation whole, and what batch n holds depends on the seed and n only."""

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
from collections import Counter

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ualm_jax.data.dataset import open_dataset
from ualm_jax.data.pipeline import DataConfig, fill_fraction, make_loader, open_records, record_ids
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.vocabulary import PAD, Vocabulary


@pytest.fixture
def config(dataset) -> DataConfig:
    return DataConfig(str(dataset.directory), seq_len=160, batch_size=4, seed=3, cfg_dropout=0.0, packing_bins=8)


@pytest.fixture
def load(dataset):
    """The first `count` batches, with their record indices."""

    def load(config, count, *, skip=0, **processes):
        iterator = make_loader(config, dataset.vocabulary, **processes)
        try:
            return list(itertools.islice(iterator, skip, skip + count))
        finally:
            iterator.close()

    return load


def conversations(batches):
    """(record index, tokens, loss weights, positions) of each segment, in order."""
    for batch, records in batches:
        for row in range(len(batch.tokens)):
            for segment in range(1, batch.segment_ids[row].max() + 1):
                where = batch.segment_ids[row] == segment
                (index,) = set(records[row][where].tolist())
                yield (
                    index,
                    batch.tokens[row][where],
                    batch.loss_weights[row][where],
                    batch.positions[row][where],
                )


def assert_same(first, second):
    assert len(first) == len(second)
    for (batch, records), (other, others) in zip(first, second, strict=True):
        np.testing.assert_array_equal(records, others)
        for name in ("tokens", "loss_weights", "segment_ids", "positions"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(other, name))


def test_every_segment_is_one_whole_conversation(dataset, config, load):
    records = open_records(dataset)
    for index, tokens, weights, positions in conversations(load(config, 20)):
        grid = build_grid(records[index].messages, dataset.vocabulary)
        np.testing.assert_array_equal(tokens, grid.tokens)
        np.testing.assert_array_equal(weights, grid.loss_weights)
        np.testing.assert_array_equal(positions, np.arange(len(tokens)))


def test_segments_are_numbered_from_one_and_padding_is_empty(config, load):
    for batch, records in load(config, 10):
        assert batch.tokens.shape == (4, 160, 8) and batch.tokens.dtype == np.int32
        assert batch.loss_weights.shape == (4, 160, 8) and batch.loss_weights.dtype == np.float32
        padding = batch.segment_ids == 0
        assert (batch.tokens[padding] == PAD).all() and (batch.loss_weights[padding] == 0).all()
        assert (batch.positions[padding] == 0).all()
        np.testing.assert_array_equal(records == -1, padding)
        for row in batch.segment_ids:
            used = row[: (row > 0).sum()]
            assert (row[len(used) :] == 0).all() and used[0] == 1 and set(np.diff(used)) <= {0, 1}


def test_each_epoch_holds_every_conversation_once(dataset, config, load):
    # Bins are given out together, so after whole rounds of them exactly a prefix of the stream is through.
    rounds = 2 * 30
    seen = [index for index, *_ in conversations(load(config, rounds))]
    counts = Counter(seen)
    assert set(counts) == set(range(dataset.records))
    assert max(counts.values()) - min(counts.values()) == 1, "only the last epoch is not complete"
    assert min(counts.values()) >= 3


def test_each_epoch_has_another_order(dataset, config, load):
    bins = dataclasses.replace(config, packing_bins=1, batch_size=1)  # keeps the order of the stream
    seen = [index for index, *_ in conversations(load(bins, 150))]
    first, second = seen[:100], seen[100:200]
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second and first != sorted(first)


def test_the_seed_decides_the_order(config, load):
    config = dataclasses.replace(config, cfg_dropout=0.3)
    assert_same(load(config, 10), load(config, 10))
    other = load(dataclasses.replace(config, seed=4), 10)
    assert not np.array_equal(load(config, 10)[0][1], other[0][1])


def test_prefetching_changes_nothing(config, load):
    config = dataclasses.replace(config, cfg_dropout=0.3)
    assert_same(load(dataclasses.replace(config, prefetch=0), 12), load(config, 12))


@pytest.mark.parametrize("num_workers, starts", [(0, [19, 0, 7]), (2, [7])])
def test_resuming_equals_going_on_with_any_number_of_workers(dataset, config, load, num_workers, starts):
    config = dataclasses.replace(config, cfg_dropout=0.3)
    uninterrupted = load(config, 25)
    config = dataclasses.replace(config, num_workers=num_workers)
    iterator, states = make_loader(config, dataset.vocabulary), []
    for expected in uninterrupted[:20]:
        states.append(iterator.get_state())
        assert_same([next(iterator)], [expected])
    iterator.close()
    resumed = make_loader(config, dataset.vocabulary)
    for start in starts:
        resumed.set_state(states[start])
        assert_same(list(itertools.islice(resumed, 6)), uninterrupted[start : start + 6])
    resumed.close()


def test_orbax_keeps_the_place(dataset, config, load, tmp_path):
    iterator = make_loader(config, dataset.vocabulary)
    list(itertools.islice(iterator, 5))
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(5, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        manager.wait_until_finished()
        fresh = make_loader(config, dataset.vocabulary)
        manager.restore(5, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    assert_same(list(itertools.islice(fresh, 3)), load(config, 3, skip=5))
    iterator.close()
    fresh.close()


def test_processes_share_the_stream(dataset, config, load):
    config = dataclasses.replace(config, packing_bins=1)
    stream = [index for index, *_ in conversations(load(config, 30))]
    for process in range(2):
        batches = load(config, 30, process_index=process, process_count=2)
        assert batches[0][0].tokens.shape == (2, 160, 8)
        share = [index for index, *_ in conversations(batches)]
        length = min(len(share), len(stream[process::2]))
        assert length > 50 and share[:length] == stream[process::2][:length]


def test_dropped_conditions_are_as_many_as_asked_for(dataset, config, load):
    config = dataclasses.replace(config, cfg_dropout=0.3)
    records, dropped, total = open_records(dataset), 0, 0
    for index, tokens, weights, _ in conversations(load(config, 60)):
        audio_only = build_grid(records[index].messages, dataset.vocabulary, only_segment=1)
        full = build_grid(records[index].messages, dataset.vocabulary)
        is_dropped = np.array_equal(tokens, audio_only.tokens)
        grid = audio_only if is_dropped else full
        np.testing.assert_array_equal(tokens, grid.tokens)
        np.testing.assert_array_equal(weights, grid.loss_weights)
        dropped, total = dropped + is_dropped, total + 1
    assert abs(dropped / total - 0.3) < 4 * np.sqrt(0.3 * 0.7 / total)


def test_dropout_does_not_depend_on_the_number_of_processes(dataset, config, load):
    config = dataclasses.replace(config, cfg_dropout=0.5, packing_bins=1)
    whole = [tokens for _, tokens, *_ in conversations(load(config, 20))]
    share = [tokens for _, tokens, *_ in conversations(load(config, 20, process_index=1, process_count=2))]
    for tokens, others in zip(share, whole[1::2], strict=False):
        np.testing.assert_array_equal(tokens, others)


def test_packing_leaves_little_padding(config, load):
    batches = load(dataclasses.replace(config, seq_len=256, packing_bins=16), 40)
    filled = [fill_fraction(batch) for batch, _ in batches]
    assert filled[0] == pytest.approx((batches[0][1] >= 0).mean())
    assert np.mean(filled) > 0.85


def test_a_batch_can_be_traced_to_its_records(dataset, config, load):
    ((batch, records),) = load(config, 1)
    wanted = [f"fake/clip-{index}" for index, *_ in conversations([(batch, records)])]
    assert record_ids(config, records) == wanted


def test_what_does_not_fit_is_refused_at_the_start(dataset, config):
    made = dataset.vocabulary
    with pytest.raises(UserError, match=rf"longest conversation has {dataset.longest} rows.*seq_len is 80"):
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


def test_a_vocabulary_may_have_room_for_more_text(dataset, config):
    vocabulary = dataclasses.replace(dataset.vocabulary, text_size=300)
    iterator = make_loader(config, vocabulary)
    batch, _ = next(iterator)
    iterator.close()
    assert batch.tokens.max() >= vocabulary.audio_pad(7)


@pytest.mark.parametrize(
    "field, value",
    [("seq_len", 0), ("batch_size", 0), ("cfg_dropout", 1.5), ("seed", 2**32), ("prefetch", -1)],
)
def test_a_config_checks_itself(config, field, value):
    with pytest.raises(UserError, match=f"data.{field} "):
        dataclasses.replace(config, **{field: value})


def test_reading_data_starts_no_accelerator(dataset):
    program = (
        "from ualm_jax.data.pipeline import DataConfig, Vocabulary, make_loader\n"
        f"config = DataConfig({str(dataset.directory)!r}, seq_len=160, batch_size=4)\n"
        f"next(make_loader(config, {Vocabulary.__name__}(256, 32, 8)))\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "print('idle')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "idle\n", done.stderr
