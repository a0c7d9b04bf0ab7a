"""X-codec computes what `transformers` and the reference compute."""

import numpy as np
import pytest
from helpers import xcodec_oracle
from helpers.sounds import sounds

from ualm_jax.codecs.xcodec.model import XCodec


def test_the_references_codes_and_wave_are_reproduced(golden, golden_dir):
    codec = XCodec.from_directory(golden_dir / "xcodec")
    codes = codec.encode(golden["codec/waveform"][0])
    np.testing.assert_array_equal(codes.T, golden["codec/codes_no_delay"])
    np.testing.assert_allclose(codec.decode(codes), golden["codec/decoded"][0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("remainder", [0, 79, 80, 311, 312])
@pytest.mark.parametrize("hops", [1, 11, 20])
def test_any_length_is_encoded_as_hf_does(codec, hf, hops, remainder):
    wav = sounds()["melody"][: 320 * hops + remainder]
    codes = codec.encode(wav)
    np.testing.assert_array_equal(codes, xcodec_oracle.encode(hf, wav))
    np.testing.assert_allclose(codec.decode(codes), xcodec_oracle.decode(hf, codes), rtol=0, atol=1e-4)


def test_the_shortest_clip_has_one_frame(codec, hf):
    wav = sounds()["noise"][:80]
    codes = codec.encode(wav)
    assert codes.shape == (1, 8)
    np.testing.assert_array_equal(codes, xcodec_oracle.encode(hf, wav))


@pytest.mark.slow
def test_a_hundred_random_clips_differ_at_most_by_ties(codec, hf):
    rng = np.random.default_rng(0)
    kinds = list(sounds().values())
    near_ties = 0
    for _ in range(100):
        start, length = rng.integers(0, 12000), int(rng.integers(80, 20000))
        wav = kinds[rng.integers(len(kinds))][start : start + length] * np.float32(rng.uniform(0.1, 2))
        ours, theirs = codec.encode(wav), xcodec_oracle.encode(hf, wav)
        near_ties += xcodec_oracle.ties(hf, wav, ours, theirs)
        np.testing.assert_allclose(codec.decode(theirs), xcodec_oracle.decode(hf, theirs), rtol=0, atol=1e-4)
    assert near_ties <= 2, f"{near_ties} frames differ"


def test_silence_is_encoded_as_hf_does(codec, hf):
    wav = np.zeros(6400, np.float32)
    np.testing.assert_array_equal(codec.encode(wav), xcodec_oracle.encode(hf, wav))
