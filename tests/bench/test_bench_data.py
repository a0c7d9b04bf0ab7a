"""`ualm bench data`: both sides load the same conversations, and what is counted and held is what it says."""

import itertools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ualm_jax.bench import data, reference_loading
from ualm_jax.bench.loading_memory import watch
from ualm_jax.bench.made_data import VOCABULARY, conversation, stretch, write_dataset
from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.dataset.lengths import Lengths
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Modality

RECORDS = 48


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "made", RECORDS, shard_size=20)


def grid(number: int) -> tuple[np.ndarray, np.ndarray]:
    found = build_grid(conversation(number), VOCABULARY)
    return found.tokens, found.loss_weights


def test_the_dataset_holds_the_conversations(made):
    records = open_records(made)
    assert made.records == len(records) == RECORDS and len(made.shards) == 3
    for number in range(RECORDS):
        tokens, _ = grid(number)
        np.testing.assert_array_equal(build_grid(records[number].messages, VOCABULARY).tokens, tokens)
        assert Lengths(made.directory, None)[number].length == len(tokens)


def test_conversations_are_as_long_as_stated():
    conversations = [conversation(number) for number in range(600)]
    assert all(10 <= len(question.content) <= 60 for question, _ in conversations)
    sounds = [len(answer.content) for _, answer in conversations if answer.modality == Modality.AUDIO]
    texts = [len(answer.content) for _, answer in conversations if answer.modality == Modality.TEXT]
    assert len(sounds) == 450 and np.mean(np.array(sounds) == 500) == pytest.approx(2 / 3, abs=0.01)
    assert min(sounds) >= 100 and max(sounds) == 500
    assert max(texts) <= 3000 and np.median(texts) == pytest.approx(400, rel=0.25)


@pytest.mark.parametrize("kind", reference_loading.KINDS)
def test_the_reference_loads_every_conversation_once_an_epoch(kind, tmp_path):
    conversations = [conversation(number) for number in range(RECORDS)]
    index = reference_loading.write_tars(tmp_path, kind, conversations, VOCABULARY, per_tar=20)
    assert len(list(tmp_path.iterdir())) == 3
    planned = reference_loading.pack(index, data.SEQ_LEN)
    assert sorted(itertools.chain(*planned), key=int) == [str(number) for number in range(RECORDS)]
    loaded = reference_loading.batches(
        index, kind, VOCABULARY, batch_rows=data.SEQ_LEN, num_workers=0, count=2 * len(planned)
    )
    wanted = sorted(len(grid(number)[0]) for number in range(RECORDS))
    for _ in range(2):
        epoch = list(itertools.islice(loaded, len(planned)))
        lengths = []
        for batch in epoch:
            tokens, positions = batch["seqs"].numpy()[0], batch["position_ids"].numpy()[0]
            assert tokens.shape == (len(positions), 8) and len(positions) <= data.SEQ_LEN
            starts = np.flatnonzero(positions == 0)
            lengths += np.diff([*starts, len(positions)]).tolist()
            assert (tokens[starts, 0] == 1).all()  # <|bos|>
            makes_sound = (tokens[:, 0] == VOCABULARY.audio_pad(0)).any()
            assert ("wavs" in batch) == (kind != "codes" and makes_sound)
        assert sorted(lengths) == wanted


def test_with_codes_in_its_tars_the_reference_makes_the_grids_of_ours(tmp_path):
    conversations = [conversation(number) for number in range(8)]
    index = reference_loading.write_tars(tmp_path, "codes", conversations, VOCABULARY, per_tar=8)
    loaded = reference_loading.Tars(index, "codes", VOCABULARY)
    for number in range(8):
        tokens, weights, wav = loaded[str(number)]
        np.testing.assert_array_equal(tokens, grid(number)[0])
        np.testing.assert_array_equal(weights, grid(number)[1])
        assert wav is None


def test_sounds_in_its_tars_are_as_long_as_their_codes(tmp_path):
    index = reference_loading.write_tars(tmp_path, "flac", [conversation(0)], VOCABULARY, per_tar=1)
    tokens, _, wav = reference_loading.Tars(index, "flac", VOCABULARY)["0"]
    assert len(tokens) == len(grid(0)[0]) and len(wav) == 320 * len(conversation(0)[1].content)


def test_a_rate_counts_positions_that_are_filled_and_the_time_of_its_side_alone(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(data, "time", SimpleNamespace(perf_counter=lambda: clock.now, sleep=lambda seconds: None))

    def side(seconds: float, filled: int):
        while True:
            clock.now += seconds
            yield filled, data.SEQ_LEN

    sides = {"half full": side(0.25, data.SEQ_LEN // 2), "full": side(0.125, data.SEQ_LEN)}
    half, full = data.rates_in_turn(sides, rows=20, rounds=3)
    assert half == {"work": "half full", "rows_per_second": {"median": 2, "min": 2, "max": 2, "runs": 3}, "filled": 0.5}
    assert full == {"work": "full", "rows_per_second": {"median": 8, "min": 8, "max": 8, "runs": 3}, "filled": 1.0}


def test_a_stretched_index_is_read_like_any_other_and_few_of_its_shards_stay_open(made, tmp_path):
    huge = stretch(made, tmp_path / "huge", 12_000)
    records, lengths = open_records(huge), Lengths(huge.directory, None)
    assert huge.records == len(records) == len(lengths) == 12_000 and len(huge.shards) == 750
    before = len(os.listdir("/proc/self/fd"))
    for index in range(0, huge.records, 16):
        assert records[index].id == str(index % RECORDS)
        assert lengths[index].length == lengths[index % RECORDS].length
    assert 0 < len(os.listdir("/proc/self/fd")) - before <= 512


def test_memory_is_seen_in_another_process(made):
    config = DataConfig(directory=str(made.directory), seq_len=data.SEQ_LEN, batch_size=2)
    seen = watch(config, VOCABULARY, records=200)
    assert seen.keys() == {"seconds", "opened_bytes", "grown_bytes", "resident_bytes", "files"}
    assert seen["resident_bytes"] > 50e6 and seen["files"] > 3 and abs(seen["grown_bytes"]) < 50e6


@pytest.mark.slow
def test_the_whole_part_reports_loaders_step_and_memory(tmp_path):
    words = "--against torch --workers 1 --records 512 --rows 16 --steps 1 --read 500 --index 20000 --json"
    command = [sys.executable, "-m", "ualm_jax.cli.main", "bench", "data", *words.split(), str(tmp_path / "bench.json")]
    subprocess.run(command, check=True, env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"})
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    works = [row["work"] for row in rows]
    assert works[:2] == ["ours, 1 workers", "ours, no workers"]
    assert works[2:5] == [f"reference, {kind}, 1 workers" for kind in ("codes", "wav", "flac")]
    assert works[5].startswith("training step, tiny") and rows[5]["ratio"] >= 5
    assert [work.split(" from ")[1] for work in works[6:]] == [
        "512 in 1 shards",
        "512 in 4 shards",
        "20,480 in 40 shards",
    ]
    assert all(row["filled"] > 0.9 for row in rows[:5])
