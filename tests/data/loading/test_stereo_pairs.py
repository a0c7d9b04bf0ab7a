"""Pairs that an enhancer learns from: aligned to the sample whatever was done, and the same on any mesh."""

import numpy as np
import pytest

from ualm_jax.data.loading.pairs import DegradationConfig, PairMaker, coloured
from ualm_jax.errors import UserError

BATCH, SAMPLES = 4, 9600


@pytest.fixture(scope="module")
def crops():
    """Noise below 5 kHz: where it lies in time can be told to the sample."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal((BATCH, SAMPLES, 2)), axis=1)
    spectrum[:, SAMPLES * 5000 // 48000 :] = 0
    return (0.2 * np.fft.irfft(spectrum, axis=1)).astype(np.float32)


def maker(rows=slice(None), codec=None, **config) -> PairMaker:
    return PairMaker(DegradationConfig(**config), 7, BATCH, rows, codec)


def lag(low, wanted):
    """Samples of 16 kHz that `low` lies behind."""
    both = np.fft.irfft(np.fft.rfft(low, 8192) * np.conj(np.fft.rfft(wanted, 8192)))
    return (int(np.argmax(both)) + 4096) % 8192 - 4096


CASES = {
    "clean": {},
    "coloured": dict(equaliser_share=1.0, equaliser_db=12.0),
    "noisy": dict(noise_share=1.0, noise_db=(-12.0, -6.0)),
    "through a codec": dict(codec_share=1.0, codec=lambda wavs: [0.5 * wav for wav in wavs]),
}


@pytest.mark.parametrize("name", CASES)
def test_pairs_are_aligned_to_the_sample(crops, name):
    made = maker(**CASES[name])(3, crops)
    assert made["wav"] is crops and made["low"].shape == (BATCH, SAMPLES // 3)
    wanted = crops.mean(2)[:, ::3]  # nothing of it lies above 8 kHz, so every third sample is the sound at 16 kHz
    for low, target in zip(made["low"], wanted, strict=True):
        assert lag(low, target) == 0
        assert lag(np.roll(low, 1), target) == 1
        inner = slice(200, -200)
        error = np.sqrt(np.mean((low - target)[inner] ** 2)) / np.sqrt(np.mean(target[inner] ** 2))
        assert (error < 1e-3) if name == "clean" else (0.05 < error < 2)


def test_a_row_depends_on_neither_its_process_nor_what_was_drawn_before(crops):
    everything = dict(equaliser_share=0.5, noise_share=0.5, codec_share=0.5, codec=lambda wavs: [-wav for wav in wavs])
    whole = maker(**everything)(5, crops)["low"]
    part = maker(rows=slice(2, 4), **everything)(5, crops[2:])["low"]
    np.testing.assert_array_equal(part, whole[2:])
    assert not np.array_equal(maker(**everything)(6, crops)["low"], whole)


def test_an_equaliser_does_what_its_gains_say():
    n = np.arange(16000)
    gains = np.array([0, 0, 0, 6.0, 0, 0, 0])  # the middle of 50 to 8000 Hz is 632 Hz
    tone = np.sin(2 * np.pi * 632.456 * n / 16000).astype(np.float32)
    inner = slice(3000, -3000)
    assert np.std(coloured(tone, gains)[inner]) / np.std(tone[inner]) == pytest.approx(10 ** (6 / 20), rel=0.02)
    low = np.sin(2 * np.pi * 60 * n / 16000).astype(np.float32)
    assert np.std(coloured(low, gains)[inner]) / np.std(low[inner]) == pytest.approx(1.0, rel=0.02)


def test_degradations_that_can_not_be_are_refused():
    with pytest.raises(UserError, match="pairs.codec_share must be at least 0 and at most 1"):
        DegradationConfig(codec_share=1.5)
    with pytest.raises(UserError, match="the smaller one first"):
        DegradationConfig(noise_db=(-10.0, -20.0))
