"""What version 0.1 wrote opens: a dataset, a run and a converted checkpoint, made by it and committed."""

import pathlib
import tarfile

import jax
import numpy as np
import pytest
from flax import nnx

import ualm_jax
from ualm_jax.audio.io import read_audio
from ualm_jax.cli.main import run
from ualm_jax.data.dataset.folder import open_dataset
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader

ARCHIVE = pathlib.Path(__file__).parent / "legacy" / "made_by_0.1.tar.xz"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("legacy")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_dataset(made):
    info = open_dataset(made / "dataset")
    config = DataConfig(directory=str(made / "dataset"), seq_len=160, batch_size=2)
    loader = make_loader(config, info.vocabulary, process_index=0, process_count=1)
    batch, _ = next(loader)
    loader.close()
    assert batch.tokens.shape == (2, 160, info.vocabulary.num_streams) and (batch.segment_ids > 0).sum() > 40


def test_a_run_sounds_as_it_did(made, tmp_path):
    """out.wav is what `ualm generate` of version 0.1 made of it."""
    words = ["--workdir", made / "run", "--prompt", "a click", "--seconds", "0.3", "--out", tmp_path / "out.wav"]
    assert run(["generate", *map(str, words)]) == 0
    found, expected = (read_audio(path, sample_rate=16000) for path in (tmp_path / "out.wav", made / "out.wav"))
    # The same codes; the codec pads a clip otherwise today, which may move a sample by one step of 16 bits.
    assert len(found) == len(expected) and np.abs(found - expected).max() < 1.5 / 32768


def test_a_converted_checkpoint(made):
    loaded = ualm_jax.load(made / "converted")
    assert loaded.architecture.decoder.mlp_dim == 160 and loaded.step == 0
    values = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(loaded.model, nnx.Param))]
    assert sum(value.size for value in values) == loaded.architecture.num_params() == 246080
    assert all(np.isfinite(value).all() and value.any() for value in values if value.ndim > 1)
