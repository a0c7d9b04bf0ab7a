"""Batches hold every conversation whole, and what batch n holds depends on the seed and n only."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from helpers import moving_processes
from helpers.batches import assert_same

from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.loading.loader import fill_fraction, make_loader, record_ids
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.vocabulary import PAD


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


def test_every_segment_is_one_whole_conversation(dataset, config, load):
    records = open_records(dataset)
    for index, tokens, weights, positions in conversations(load(config, 20)):
        grid = build_grid(records[index].messages, dataset.vocabulary)
        np.testing.assert_array_equal(tokens, grid.tokens)
        np.testing.assert_array_equal(weights, grid.loss_weights)
        np.testing.assert_array_equal(positions, np.arange(len(tokens)))


def test_streams_of_audio_can_weigh_more_or_less_and_text_never_does(config, load):
    factors = (4.0, 1.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25)
    weighted = dataclasses.replace(config, stream_weights=factors)
    kinds = set()
    for (batch, _), (plain, _) in zip(load(weighted, 5), load(config, 5), strict=True):
        np.testing.assert_array_equal(batch.tokens, plain.tokens)
        audio = plain.loss_weights[..., 0] == np.float32(1 / 8)
        np.testing.assert_array_equal(batch.loss_weights[~audio], plain.loss_weights[~audio])
        np.testing.assert_array_equal(batch.loss_weights[audio], plain.loss_weights[audio] * np.float32(factors))
        kinds |= set(np.unique(plain.loss_weights[..., 0]).tolist())
    assert kinds == {0.0, 0.125, 1.0}


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
    bins = dataclasses.replace(config, packing_bins=1, batch_size=1)  # keeps the order of the stream
    seen = [index for index, *_ in conversations(load(bins, 200))]
    assert len(seen) > 300
    for start in range(0, len(seen) - 100, 100):
        assert sorted(seen[start : start + 100]) == list(range(dataset.records))


def test_packing_loses_and_repeats_nothing(dataset, config, load):
    seen = Counter(index for index, *_ in conversations(load(config, 60)))
    assert set(seen) == set(range(dataset.records)) and min(seen.values()) >= 3
    # What is drawn and not yet given out waits in the bins, fewer than an epoch.
    assert max(seen.values()) - min(seen.values()) <= 2


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


def glue(parts):
    """The batches of all processes as one."""
    for batches in zip(*parts, strict=True):
        content = [np.concatenate(leaves) for leaves in zip(*(batch[:4] for batch, _ in batches), strict=True)]
        yield type(batches[0][0])(*content), np.concatenate([records for _, records in batches])


def test_all_processes_together_read_what_one_would(config, load):
    config = dataclasses.replace(config, cfg_dropout=0.3)
    whole = load(config, 12)
    for count in (2, 4):
        parts = [load(config, 12, process_index=index, process_count=count) for index in range(count)]
        assert parts[0][0][0].tokens.shape == (4 // count, 160, 8)
        assert_same(list(glue(parts)), whole)


def test_a_run_goes_on_with_more_or_fewer_processes_as_if_nothing_had_changed(dataset, config, load):
    config = dataclasses.replace(config, cfg_dropout=0.3)
    whole, state, found = load(config, 16), None, []
    for count in (1, 2, 4, 2):
        parts, states = [], []
        for index in range(count):
            loader = make_loader(config, dataset.vocabulary, process_index=index, process_count=count)
            if state is not None:
                loader.set_state(state)
            parts.append(list(itertools.islice(loader, 4)))
            states.append(loader.get_state())
            loader.close()
        assert all(other == states[0] for other in states)
        state = json.loads(json.dumps(states[0]))
        found += glue(parts)
    assert_same(found, whole)


def test_workers_outlive_ctrl_c_and_not_their_parent(dataset):
    """Ctrl-C and SIGTERM reach the whole group: the run goes on reading until it has saved. SIGKILL leaves nothing."""
    program = (
        "import multiprocessing, os, signal, sys, time\n"
        "from ualm_jax.data.loading.loader import DataConfig, Vocabulary, make_loader\n"
        "def main():\n"
        "    for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
        f"    config = DataConfig(directory={str(dataset.directory)!r}, seq_len=160, batch_size=2, num_workers=1)\n"
        "    loader = make_loader(config, Vocabulary(256, 32, 8))\n"
        "    next(loader)\n"
        "    for number in (signal.SIGINT, signal.SIGTERM): os.killpg(0, number)\n"
        "    time.sleep(0.5)\n"
        "    for _ in range(20): next(loader)\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__': main()\n"
    )
    path = dataset.directory.parent / "program.py"
    path.write_text(program)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, start_new_session=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = int(done.stdout)
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


@pytest.mark.slow
def test_real_processes_come_and_go_and_the_stream_goes_on(dataset, load, tmp_path):
    whole = load(moving_processes.config_of(str(dataset.directory)), 16)
    state, tokens, records = tmp_path / "none", [], []
    for stage, count in enumerate((1, 2, 4, 2)):
        outs = [tmp_path / f"{stage}-{index}.npz" for index in range(count)]
        program = [sys.executable, moving_processes.__file__, dataset.directory, state]
        running = [subprocess.Popen([*program, out, str(i), str(count)]) for i, out in enumerate(outs)]
        assert [process.wait(timeout=300) for process in running] == [0] * count
        states = [out.with_suffix(".json").read_text() for out in outs]
        assert len(set(states)) == 1
        state = outs[0].with_suffix(".json")
        parts = [np.load(out) for out in outs]
        tokens += list(np.concatenate([part["tokens"] for part in parts], axis=1))
        records += list(np.concatenate([part["records"] for part in parts], axis=1))
    for (batch, numbers), got, found in zip(whole, tokens, records, strict=True):
        np.testing.assert_array_equal(batch.tokens, got)
        np.testing.assert_array_equal(numbers, found)


def test_dropped_conditions_are_as_many_as_asked_for(dataset, config, load):
    config = dataclasses.replace(config, cfg_dropout=0.3)
    records, dropped, total = open_records(dataset), 0, 0
    for index, tokens, weights, _ in conversations(load(config, 30)):
        audio_only = build_grid(records[index].messages, dataset.vocabulary, only_segment=1)
        full = build_grid(records[index].messages, dataset.vocabulary)
        is_dropped = np.array_equal(tokens, audio_only.tokens)
        grid = audio_only if is_dropped else full
        np.testing.assert_array_equal(tokens, grid.tokens)
        np.testing.assert_array_equal(weights, grid.loss_weights)
        dropped, total = dropped + is_dropped, total + 1
    assert abs(dropped / total - 0.3) < 4 * np.sqrt(0.3 * 0.7 / total)


def test_packing_leaves_little_padding(config, load):
    batches = load(dataclasses.replace(config, seq_len=256, packing_bins=16), 40)
    filled = [fill_fraction(batch) for batch, _ in batches]
    assert filled[0] == pytest.approx((batches[0][1] >= 0).mean())
    assert np.mean(filled) > 0.85


def test_a_batch_can_be_traced_to_its_records(dataset, config, load):
    ((batch, records),) = load(config, 1)
    wanted = [f"fake/clip-{index}" for index, *_ in conversations([(batch, records)])]
    assert record_ids(config, records) == wanted


def test_a_vocabulary_may_have_room_for_more_text(dataset, config):
    vocabulary = dataclasses.replace(dataset.vocabulary, text_size=300)
    iterator = make_loader(config, vocabulary)
    batch, _ = next(iterator)
    iterator.close()
    assert batch.tokens.max() >= vocabulary.audio_pad(7)


@pytest.mark.parametrize(
    "field, value",
    [("seq_len", 0), ("batch_size", 0), ("cfg_dropout", 1.5), ("seed", -1), ("prefetch", -1), ("audio_slots", -1)],
)
def test_a_config_checks_itself(config, field, value):
    with pytest.raises(UserError, match=f"data.{field} "):
        dataclasses.replace(config, **{field: value})


def test_reading_data_starts_no_accelerator(dataset):
    program = (
        "from ualm_jax.data.loading.loader import DataConfig, Vocabulary, make_loader\n"
        f"config = DataConfig(directory={str(dataset.directory)!r}, seq_len=160, batch_size=4)\n"
        "loader = make_loader(config, Vocabulary(256, 32, 8))\n"
        "next(loader)\n"
        "loader.close()\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "print('idle')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "idle\n", done.stderr


def test_what_is_too_long_can_be_passed_over_and_is_counted(dataset, config, load, caplog):
    records = open_records(dataset)
    lengths = [records[index].length for index in range(dataset.records)]
    longest = sorted(lengths)[-10]
    config = dataclasses.replace(config, seq_len=longest)
    too_long = {index for index, length in enumerate(lengths) if length > longest}
    with pytest.raises(UserError, match=rf"data.skip_long=True.*; {len(too_long)} of 100 conversations are too long"):
        make_loader(config, dataset.vocabulary)
    config = dataclasses.replace(config, skip_long=True)
    with caplog.at_level("INFO"):
        seen = Counter(index for index, *_ in conversations(load(config, 80)))
    assert f"{len(too_long)} of 100 conversations are passed over as too long" in caplog.text
    assert set(seen) == set(range(100)) - too_long
    with pytest.raises(UserError, match="all of its conversations are too long"):
        make_loader(dataclasses.replace(config, seq_len=min(lengths) - 1), dataset.vocabulary)


def test_passing_over_resumes_too(dataset, config, load):
    config = dataclasses.replace(config, seq_len=100, skip_long=True)
    whole = load(config, 12)
    iterator = make_loader(config, dataset.vocabulary)
    list(itertools.islice(iterator, 5))
    state = json.loads(json.dumps(iterator.get_state()))
    iterator.close()
    resumed = make_loader(config, dataset.vocabulary)
    resumed.set_state(state)
    assert_same(list(itertools.islice(resumed, 7)), whole[5:])
    resumed.close()
