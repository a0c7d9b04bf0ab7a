import itertools

import pytest

from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader


@pytest.fixture
def config(dataset) -> DataConfig:
    return DataConfig(
        directory=str(dataset.directory), seq_len=160, batch_size=4, seed=3, cfg_dropout=0.0, packing_bins=8
    )


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
