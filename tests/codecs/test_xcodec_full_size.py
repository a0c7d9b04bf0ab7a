"""X-codec at the size of `hf-audio/xcodec-hubert-general`, random weights: the same codes as `transformers`."""

import jax
import numpy as np
import pytest
from helpers import xcodec_oracle
from helpers.sounds import sounds

from ualm_jax.codecs.xcodec.config import XCodecConfig
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import save_directory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    path = tmp_path_factory.mktemp("full")
    params = init_random(XCodecConfig(), seed=0)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 151_782_529
    save_directory(params, XCodecConfig(), path)
    return XCodec.from_directory(path), xcodec_oracle.load(path)


@pytest.mark.parametrize("remainder", [0, 79, 80, 311, 312])
def test_codes_and_wave_are_those_of_transformers(full, remainder):
    codec, hf = full
    for wav in sounds().values():
        wav = wav[: 60 * 320 + remainder]
        ours, theirs = codec.encode(wav), xcodec_oracle.encode(hf, wav)
        assert xcodec_oracle.ties(hf, wav, ours, theirs) <= 1
        np.testing.assert_allclose(codec.decode(theirs), xcodec_oracle.decode(hf, theirs), rtol=0, atol=1e-4)
