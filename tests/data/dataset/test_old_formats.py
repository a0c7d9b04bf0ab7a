"""Datasets of earlier versions stay readable."""

import pathlib
import tarfile

import pytest

from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.dataset.lengths import Lengths
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.tokens.layout import build_grid

LEGACY = pathlib.Path(__file__).parents[2] / "legacy" / "made_by_0.1.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A dataset of format 2."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(LEGACY) as archive:
        archive.extractall(folder, [member for member in archive if member.name.startswith("dataset/")], filter="data")
    return folder / "dataset"


def test_counts_and_settings_have_todays_names(old):
    info = open_dataset(old)
    assert (info.records, info.positions, info.longest) == (6, 691, 144)
    assert info.filters["duplicate-caption"] == 0 and info.made_from["filters"]["drop"] == ["duration", "length"]


def test_lengths_and_records_are_those_of_the_conversations(old):
    info = open_dataset(old)
    records, lengths = open_records(info), Lengths(old, None)
    for index in range(info.records):
        grid = build_grid(records[index].messages, info.vocabulary)
        assert records[index].length == lengths[index].length == len(grid.tokens)


def test_training_reads_it(old):
    info = open_dataset(old)
    loader = make_loader(DataConfig(directory=str(old), seq_len=160, batch_size=2), info.vocabulary)
    batch, records = next(loader)
    loader.close()
    assert set(records[batch.segment_ids > 0].tolist()) <= set(range(info.records))
