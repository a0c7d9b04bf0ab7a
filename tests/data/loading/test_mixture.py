"""Several datasets in one stream: shares in real batches, agreement of their parts, sources from a config file."""

import dataclasses
import itertools
import json
import re
import shutil

import numpy as np
import pytest
from helpers.fake_sounds import FakeSource, prepare_fake
from ml_collections import ConfigDict

from ualm_jax.data.loading.config import DataConfig, SourceConfig
from ualm_jax.data.loading.loader import make_loader, open_sources, record_ids
from ualm_jax.data.raw.conversation import RawConversation, RawMessage
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping, to_mapping
from ualm_jax.tokens.types import Modality, Role


class Texts:
    name = "texts"
    left_out = ()

    def __len__(self):
        return 60

    def __getitem__(self, index):
        texts = (Role.USER, f"question {index}"), (Role.ASSISTANT, "answer " * (index % 7 + 1))
        return RawConversation(f"t-{index}", tuple(RawMessage(role, Modality.TEXT, text) for role, text in texts))

    def fingerprint(self):
        return {"kind": self.name}


@pytest.fixture(scope="module")
def texts(parts, tmp_path_factory):
    return prepare_fake(Texts(), parts, tmp_path_factory.mktemp("texts") / "texts")


@pytest.fixture
def config(dataset, texts) -> DataConfig:
    sources = SourceConfig(str(dataset.directory), 0.3), SourceConfig(str(texts.directory), 0.7)
    return DataConfig(sources=sources, seq_len=256, batch_size=4, packing_bins=8, cfg_dropout=0.3)


def read(config, vocabulary, count, state=None):
    loader = make_loader(config, vocabulary)
    if state is not None:
        loader.set_state(state)
    batches = list(itertools.islice(loader, count))
    progress, state = loader.progress(), loader.get_state()
    loader.close()
    return batches, progress, state


def test_batches_hold_the_shares_asked_for(dataset, config):
    batches, progress, _ = read(config, dataset.vocabulary, 60)
    records = np.concatenate([numbers.ravel() for _, numbers in batches])
    records = records[records >= 0]
    assert np.mean(records < dataset.records) == pytest.approx(0.3, abs=0.02)
    first, second = progress
    assert (first.share, second.share) == pytest.approx((0.3, 0.7), abs=0.01)
    assert first.tokens + second.tokens >= len(records)
    assert second.epochs == pytest.approx(second.tokens / open_sources(config)[1].positions, rel=0.05)


def test_without_weights_an_epoch_of_one_is_an_epoch_of_all_times_repeat(dataset, texts, config):
    sources = SourceConfig(str(dataset.directory), repeat=2.0), SourceConfig(str(texts.directory))
    config = dataclasses.replace(config, sources=sources)
    _, (first, second), _ = read(config, dataset.vocabulary, 60)
    assert first.epochs / second.epochs == pytest.approx(2.0, rel=0.05)


def test_records_are_traced_to_their_source(dataset, config):
    ((_, numbers),), _, _ = read(config, dataset.vocabulary, 1)
    names = record_ids(config, numbers)
    assert len(names) == len(set(numbers[numbers >= 0].tolist()))
    for number, name in zip(dict.fromkeys(numbers[numbers >= 0].tolist()), names, strict=True):
        assert re.match("fake/clip-" if number < dataset.records else "texts/t-", name)


def test_a_source_can_be_added_to_a_running_mixture(dataset, texts, config):
    alone = dataclasses.replace(config, sources=config.sources[1:])
    vocabulary = dataset.vocabulary
    _, _, state = read(alone, vocabulary, 5)
    together, progress, _ = read(config, vocabulary, 12, json.loads(json.dumps(state)))
    order = [n for _, numbers in read(alone, vocabulary, 10)[0] for n in dict.fromkeys(numbers.ravel().tolist())]
    assert progress[0].tokens > 0 and progress[1].tokens > progress[0].tokens
    assert set(order) - {-1} == set(range(texts.records)) and len(together) == 12


def test_datasets_of_different_tokenizers_or_codecs_are_both_named(dataset, parts, config, tmp_path):
    other = shutil.copytree(parts, tmp_path / "parts")
    (other / "codec" / "more.json").write_text("{}")
    odd = prepare_fake(FakeSource(5), other, tmp_path / "odd")
    sources = SourceConfig(str(dataset.directory)), SourceConfig(str(odd.directory))
    with pytest.raises(UserError, match=rf"{dataset.directory} and {odd.directory}: were made with different codecs"):
        open_sources(dataclasses.replace(config, sources=sources))


def test_the_same_data_twice_is_refused(dataset, config, tmp_path):
    copy = shutil.copytree(dataset.directory, tmp_path / "copy")
    sources = SourceConfig(str(dataset.directory)), SourceConfig(str(copy))
    with pytest.raises(UserError, match="copy: holds the same as another"):
        open_sources(dataclasses.replace(config, sources=sources))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"directory": "a"}, "either data.directory or data.sources"),
        ({"sources": ()}, "either data.directory or data.sources"),
        ({"sources": (SourceConfig("a", 1.0), SourceConfig("b"))}, "some have a weight and some have none"),
        ({"sources": (SourceConfig("a"), SourceConfig("a"))}, "names a twice"),
        ({"sources": (SourceConfig("a", 0.0),)}, "all weights are 0"),
    ],
)
def test_sources_check_themselves(config, fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(config, **fields).check_sources()


def test_a_source_checks_itself():
    for fields in ({"weight": -1.0}, {"repeat": 0.0}, {"weight": 1.0, "repeat": 2.0}):
        with pytest.raises(UserError, match=r"data\.sources(: |\[a\]\.)"):
            SourceConfig("a", **fields)


def test_sources_come_from_a_config_file(config):
    mapping = {
        "sources": ({"directory": "a", "weight": 0.5}, {"directory": "b", "weight": 1}),
        "seq_len": 8,
        "batch_size": 2,
    }
    found = from_mapping(DataConfig, ConfigDict(mapping).to_dict(), "config.data")
    assert found.sources == (SourceConfig("a", 0.5), SourceConfig("b", 1.0))
    assert from_mapping(DataConfig, json.loads(json.dumps(to_mapping(found)))) == found
    with pytest.raises(UserError, match=r"config.data.sources\[1\].wait is not a field .*weight"):
        from_mapping(DataConfig, mapping | {"sources": ({"directory": "a"}, {"wait": 1})}, "config.data")


def test_progress_counts_what_the_batches_hold_and_not_what_waits(dataset, config):
    config = dataclasses.replace(config, cfg_dropout=0.0)
    batches, progress, _ = read(config, dataset.vocabulary, 7)
    records = np.concatenate([numbers.ravel() for _, numbers in batches])
    held = [int(((records >= 0) & (records < dataset.records)).sum()), int((records >= dataset.records).sum())]
    assert [each.tokens for each in progress] == held
    assert progress[0].share == held[0] / sum(held)


def test_a_dataset_that_was_prepared_again_is_named_when_a_run_is_resumed(dataset, texts, parts, config, tmp_path):
    first = shutil.copytree(texts.directory, tmp_path / "texts")
    config = dataclasses.replace(config, sources=(SourceConfig(str(first)),))
    _, _, state = read(config, dataset.vocabulary, 1)
    shutil.rmtree(first)
    shutil.copytree(dataset.directory, first)
    with pytest.raises(UserError, match=f"^{first}: holds other data than when"):
        read(config, dataset.vocabulary, 1, state)
    del state["sources"][0][4]  # as version 0.1 saved it
    with pytest.raises(UserError, match=f"lacks {texts.key}"):
        read(config, dataset.vocabulary, 1, state)
