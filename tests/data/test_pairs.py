"""Pairs: a record holds the prompt once, a row both conversations whole and beside each other."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from helpers.fake_sounds import prepare_fake
from helpers.pair_sources import heard_pair, pair_source, write_pairs

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.dataset.lengths import Lengths
from ualm_jax.data.dataset.pairs import conversations_of, join_pair, split_pair
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Modality, Role

COUNT = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(scope="module")
def pairs(folder, parts):
    return prepare_fake(pair_source(write_pairs(folder, COUNT)), parts, folder / "pairs", shard_size=7)


@pytest.fixture(scope="module")
def config(pairs):
    return DataConfig(directory=str(pairs.directory), seq_len=200, batch_size=3, packing_bins=4)


def batches(config, info, count, front_end=None):
    loader = make_loader(config, info.vocabulary, front_end)
    try:
        return list(itertools.islice(loader, count))
    finally:
        loader.close()


def test_what_is_joined_comes_apart_again():
    messages, pair = join_pair("pq", "c", "rst")
    assert split_pair(messages, pair) == (list("pqc"), list("pqrst"))


def test_both_conversations_have_the_prompt_and_one_answer(pairs):
    assert pairs.pairs == pairs.records == COUNT
    for record in open_records(pairs):
        chosen, rejected = (each.messages for each in conversations_of(record))
        prompt = record.pair[0]
        assert all(
            a.content is b.content and not (a.learn or b.learn) for a, b in zip(chosen[:prompt], rejected, strict=False)
        )
        assert chosen[-1].learn and rejected[-1].learn and chosen[-1].role == rejected[-1].role == Role.ASSISTANT
        assert sum(len(build_grid(each, pairs.vocabulary).tokens) for each in (chosen, rejected)) == record.length
    kinds = [[message.modality for message in conversations_of(record)[0].messages] for record in open_records(pairs)]
    assert [Modality.TEXT, Modality.TEXT, Modality.AUDIO] in kinds


def test_a_row_holds_both_conversations_side_by_side(pairs, config):
    records, seen = open_records(pairs), set()
    for batch, numbers in batches(config, pairs, 16):
        for row in range(3):
            last = batch.segment_ids[row].max()
            assert last % 2 == 0
            for first in range(1, last, 2):
                one, other = (batch.segment_ids[row] == first, batch.segment_ids[row] == first + 1)
                (number,) = set(numbers[row][one | other].tolist())
                for where, conversation in zip((one, other), conversations_of(records[number]), strict=True):
                    grid = build_grid(conversation.messages, pairs.vocabulary)
                    np.testing.assert_array_equal(batch.tokens[row][where], grid.tokens)
                    np.testing.assert_array_equal(batch.positions[row][where], np.arange(len(grid.tokens)))
                seen.add(number)
        assert batch.reference.shape == (3, 200 // int(Lengths(pairs.directory, None).positions().min()), 2, 8)
        assert batch.segment_ids.max() <= 2 * batch.reference.shape[1]
    assert seen == set(range(COUNT))


def test_an_audio_condition_is_stored_once_and_heard_by_both(folder, parts, pairs):
    path = folder / "heard.jsonl"
    path.write_text(json.dumps(heard_pair()) + "\n")
    info = prepare_fake(pair_source(path), parts, folder / "heard")
    (record,) = open_records(info)
    assert len(record.clips) == 1 and [each.clips for each in conversations_of(record)] == [record.clips] * 2
    front_end = MelFrontEnd(200, windowed=False, normalize=True, max_seconds=2.0)
    config = DataConfig(directory=str(info.directory), seq_len=120, batch_size=1, audio_slots=2)
    ((batch, _),) = batches(config, info, 1, front_end)
    assert (batch.mel_frames == 100).all()
    heard = [(batch.feature_index[0] >= 0) & (batch.segment_ids[0] == segment) for segment in (1, 2)]
    assert [each.sum() for each in heard] == [25, 25]
    assert Lengths(info.directory, front_end)[0].windows == 2


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "'chosen' and 'rejected' are equal"),
        (
            {"prompt": "a", "chosen": [["assistant", "audio", "1.wav"]], "rejected": [["assistant", "audio", "1.wav"]]},
            "'chosen' and 'rejected' are equal",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": [["user", "text", "c"]]}, "nothing of 'rejected' is learnt"),
        ({"prompt": "a", "chosen": "b"}, "the field 'rejected' is missing"),
        ({"prompt": "a", "chosen": [["assistant", "smell", "b"]], "rejected": "c"}, "'chosen' message 1: the modality"),
    ],
)
def test_what_is_no_pair_is_left_out_with_the_reason(folder, parts, pairs, tmp_path, record, reason):
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    path = folder / "faulty.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (record, good)))
    info = prepare_fake(pair_source(path), parts, tmp_path / "faulty", max_bad_fraction=0.6)
    assert info.records == info.pairs == 1
    assert reason in json.loads((info.directory / "quarantine.jsonl").read_text())["reason"]


def test_pairs_and_conversations_do_not_mix(pairs, dataset, config):
    from ualm_jax.data.loading.config import SourceConfig

    sources = tuple(SourceConfig(str(info.directory)) for info in (pairs, dataset))
    with pytest.raises(UserError, match="different codecs|one holds pairs"):
        make_loader(dataclasses.replace(config, directory=None, sources=sources), pairs.vocabulary)
