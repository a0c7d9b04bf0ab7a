"""Codes one after the other are another layout of the same codes, and a model of them makes the benchmark's sounds."""

import dataclasses

import numpy as np
import pytest
from helpers import run_config
from helpers.fake_sounds import FakeSource, prepare_fake
from helpers.tools import tool

from ualm_jax.audio.io import read_audio
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.mapping import from_mapping
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.tokenizer import save_byte_tokenizer
from ualm_jax.tokens.types import Modality
from ualm_jax.train.config import RunConfig
from ualm_jax.train.stages.run import train

BOOKS, SIZE = 8, 32


@pytest.fixture(scope="module")
def flattened():
    return tool("flattened")


@pytest.fixture(scope="module")
def datasets(flattened, tmp_path_factory):
    """A dataset, and the same with codes one after the other."""
    parts, folder = tmp_path_factory.mktemp("parts"), tmp_path_factory.mktemp("datasets")
    save_byte_tokenizer(parts / "tokenizer")
    codec = dataclasses.replace(tiny_config(), codebook_size=SIZE, target_bandwidths=(2.0,))
    save_directory(init_random(codec, 0), codec, parts / "codec")
    prepare_fake(FakeSource(12), parts, folder / "delayed")
    flattened.main(["data", str(folder / "delayed"), str(folder / "flat")])
    return folder / "delayed", folder / "flat"


def test_nothing_is_lost(flattened, datasets):
    before, after = (open_dataset(folder) for folder in datasets)
    assert after.vocabulary == dataclasses.replace(before.vocabulary, codebook_size=BOOKS * SIZE, num_codebooks=1)
    codec = flattened.Flattened(XCodec.from_directory(datasets[1] / "codec"))
    assert after.frame_rate == codec.frame_rate == BOOKS * XCodec.from_directory(datasets[0] / "codec").frame_rate
    assert after.text_tokens == before.text_tokens
    for delayed, flat in zip(open_records(before), open_records(after), strict=True):
        assert (delayed.id, delayed.caption) == (flat.id, flat.caption)
        assert flat.length == len(build_grid(flat.messages, after.vocabulary).tokens)
        for one, other in zip(delayed.messages, flat.messages, strict=True):
            if one.modality == Modality.AUDIO:
                np.testing.assert_array_equal(codec.whole(other.content), one.content)
                # The order in which a frame is said: its first codebook first.
                np.testing.assert_array_equal(other.content[:BOOKS, 0], one.content[0] + SIZE * np.arange(BOOKS))
            else:
                assert one.modality == other.modality and np.array_equal(one.content, other.content)


def test_a_frame_that_was_cut_off_is_left_out_and_a_wrong_codebook_does_no_harm(flattened, datasets):
    codec = flattened.Flattened(XCodec.from_directory(datasets[1] / "codec"))
    codes = np.random.default_rng(0).integers(0, SIZE, (3, BOOKS))
    said = codec.flatten(codes)
    np.testing.assert_array_equal(codec.whole(said[:-1]), codes[:2])
    astray = said.copy()
    astray[5] = (astray[5] + SIZE) % (BOOKS * SIZE)
    np.testing.assert_array_equal(codec.whole(astray), codes)
    np.testing.assert_array_equal(codec.decode(said), codec.decode_batch([said])[0])


@pytest.mark.slow
def test_a_model_of_them_makes_sounds(flattened, datasets, tmp_path):
    values = run_config.get_config()
    values.model.vocabulary.update(num_codebooks=1, codebook_size=BOOKS * SIZE)
    values.data.update(directory=str(datasets[1]), batch_size=8, seq_len=BOOKS * values.data.seq_len)
    values.train.update(steps=1)
    train(from_mapping(RunConfig, values.to_dict()), tmp_path / "run")
    words = "--lists fresh --limit 2".split()
    flattened.main(["sounds", str(tmp_path / "run"), str(tmp_path / "wavs"), *words])
    hop = XCodec.from_directory(datasets[1] / "codec").hop
    made = [read_audio(path, sample_rate=16000) for path in sorted((tmp_path / "wavs").glob("fresh-*.wav"))]
    assert len(made) == 2 and all(len(wav) >= hop and len(wav) % hop == 0 for wav in made)  # whole frames
