"""Long clips are computed in pieces, and nothing shows it."""

import numpy as np
import pytest
from helpers.sounds import sounds

from ualm_jax.codecs.xcodec import dac, model, pieces


@pytest.fixture(scope="module")
def clips():
    made = list(sounds(7.2).values())
    return made[2], made[4][: 16000 * 6 + 77]


@pytest.fixture(scope="module")
def whole(codec, clips):
    codes = codec.encode_batch(clips)
    return codes, codec.decode_batch(codes)


@pytest.fixture
def in_small_pieces(codec, monkeypatch):
    """From here on clips of more than 1.3 s are computed in three pieces, and attention in blocks."""
    monkeypatch.setattr(pieces, "LONGEST", 64)
    monkeypatch.setattr(pieces, "PIECE", 128)
    monkeypatch.setattr(pieces, "_SCORES", 1 << 14)
    clear()
    yield
    clear()


def clear():
    model._encode.clear_cache()
    model._decode.clear_cache()


def test_codes_and_waves_are_those_of_the_whole_clip(codec, clips, whole, in_small_pieces):
    codes, waves = whole
    for found, expected in zip(codec.encode_batch(clips), codes, strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(codec.decode_batch(codes), waves, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_without_their_context_pieces_would_be_seen(codec, clips, whole, in_small_pieces, monkeypatch):
    monkeypatch.setattr(dac, "encoder_context", lambda config: 1)
    monkeypatch.setattr(dac, "decoder_context", lambda config: 1)
    codes, waves = whole
    assert not np.array_equal(codec.encode(clips[1]), codes[1])
    assert np.abs(codec.decode(codes[1]) - waves[1]).max() > 1e-4


@pytest.mark.slow
def test_ten_minutes_are_encoded_and_decoded(codec):
    wav = np.concatenate([0.1 * sound for sound in sounds(100.0).values()])[: 600 * 16000]
    codes = codec.encode(wav)
    assert codes.shape == (30000, 8)
    assert codec.decode(codes).shape == (600 * 16000,)
