"""A dataset that runs are trained on."""

import dataclasses
import pathlib

import pytest
from helpers.fake_sounds import FakeSource, prepare_fake

from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.tokens.tokenizer import save_byte_tokenizer


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> pathlib.Path:
    parts = tmp_path_factory.mktemp("parts")
    save_byte_tokenizer(parts / "tokenizer")
    codec = dataclasses.replace(tiny_config(), codebook_size=32, target_bandwidths=(2.0,))
    save_directory(init_random(codec, 0), codec, parts / "codec")
    out = tmp_path_factory.mktemp("dataset") / "fake"
    prepare_fake(FakeSource(60), parts, out)
    return out
