"""Metrics of sound, against formulas written down a second time and cases that are known."""

import librosa
import numpy as np
import pytest
import scipy.signal

from ualm_jax.evaluate.audio_metrics import (
    codebook_use,
    log_spectral_distance,
    mel_distance,
    si_sdr,
)

RNG = np.random.default_rng(0)
NOISE = 0.1 * RNG.standard_normal(16000)


def test_si_sdr_is_the_ratio_of_a_signal_to_what_is_added_at_right_angles():
    other = RNG.standard_normal(16000)
    wanted, other = NOISE - NOISE.mean(), other - other.mean()
    other -= (other @ wanted) / (wanted @ wanted) * wanted
    other *= np.sqrt((wanted @ wanted) / (other @ other)) * 10 ** (-12 / 20)
    assert si_sdr(wanted + other, wanted) == pytest.approx(12.0, abs=1e-6)
    assert si_sdr(-3 * (wanted + other) + 0.5, wanted) == pytest.approx(12.0, abs=1e-6)


def test_silence_has_no_ratio():
    assert np.isnan(si_sdr(NOISE, np.zeros(16000)))
    assert si_sdr(np.zeros(16000), NOISE) == -np.inf


def test_log_spectral_distance_of_a_louder_copy_is_its_gain():
    loud = 10 * NOISE  # so that no bin falls to the floor
    assert log_spectral_distance(10 * loud, loud) == pytest.approx(2.0, abs=1e-6)  # log10 of power
    assert log_spectral_distance(NOISE, NOISE) == 0.0


def test_log_spectral_distance_looks_at_its_band_alone():
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert log_spectral_distance(NOISE + tone, NOISE, band=(0.5, 1.0)) < 0.02
    assert log_spectral_distance(NOISE + tone, NOISE, band=(0.1, 0.15)) > 0.3


def magnitudes(wav: np.ndarray, window: int) -> np.ndarray:
    spectra = scipy.signal.stft(wav, window="hann", nperseg=window, noverlap=window - window // 4, padded=False)[2]
    return np.abs(spectra) * window / 2  # scipy divides by the window's sum


def test_mel_distance_is_the_sum_over_resolutions():
    made = NOISE + 0.05 * RNG.standard_normal(16000)
    want = 0.0
    for window, bands in ((2048, 320), (1024, 160), (512, 80), (256, 40), (128, 20), (64, 10), (32, 5)):
        filters = librosa.filters.mel(sr=16000, n_fft=window, n_mels=bands)
        made_log, noise_log = (np.log10(np.maximum(filters @ magnitudes(wav, window), 1e-5)) for wav in (made, NOISE))
        want += np.mean(np.abs(made_log - noise_log))
    assert mel_distance(made, NOISE, 16000) == pytest.approx(want, rel=1e-6)


def test_use_and_perplexity_of_codebooks():
    codes = np.stack([np.arange(400) % 4, np.zeros(400, int), np.arange(400) % 8], axis=1)
    use, perplexity = codebook_use(codes, 8)
    np.testing.assert_allclose(use, [0.5, 0.125, 1.0])
    np.testing.assert_allclose(perplexity, [4.0, 1.0, 8.0])
