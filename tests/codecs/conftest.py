"""A tiny random X-codec on disk in HF's layout, and both implementations of it."""

import pytest
from helpers import xcodec_oracle

from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import save_directory


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("xcodec")
    save_directory(init_random(tiny_config(), seed=0), tiny_config(), path)
    return path


@pytest.fixture(scope="session")
def codec(tiny_dir):
    return XCodec.from_directory(tiny_dir)


@pytest.fixture(scope="session")
def hf(tiny_dir):
    return xcodec_oracle.load(tiny_dir)
