"""Pictures of sound: a high tone is high in them, and the PNG says what its axes are."""

import librosa
import numpy as np
import pytest
import scipy.signal

from ualm_jax.audio.spectrogram import log_mel_spectrogram, save_spectrogram_png, spectrogram_image
from ualm_jax.audio.stft import stft_magnitude


def sine(hz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(16000) / 16000).astype(np.float32)


@pytest.mark.parametrize("hz", [300, 1000, 4000])
def test_the_strongest_band_is_that_of_the_tone(hz):
    mel = log_mel_spectrogram(sine(hz), 16000)
    centres = librosa.mel_frequencies(128 + 2, fmin=0, fmax=8000)[1:-1]
    assert mel.shape == (128, 1 + 16000 // 256) and mel.dtype == np.float32
    assert centres[mel.mean(axis=1).argmax()] == pytest.approx(hz, rel=0.05, abs=20)


@pytest.mark.parametrize("samples", [100, 4096, 4099])
def test_magnitudes_are_those_of_scipy(samples):
    wav = np.random.default_rng(0).standard_normal(samples)
    padded = np.pad(wav, (512, 512))
    want = scipy.signal.stft(padded, window="hann", nperseg=1024, noverlap=768, boundary=None, padded=False)[2]
    magnitudes = stft_magnitude(wav, 1024, 256)
    assert magnitudes.shape == (513, 1 + samples // 256)
    np.testing.assert_allclose(magnitudes, np.abs(want) * 512, atol=1e-10)


def test_pixels_show_high_tones_on_top_and_silence_is_finite():
    low, high = spectrogram_image(sine(300), 16000), spectrogram_image(sine(4000), 16000)
    assert low.dtype == np.uint8 and low.shape == (128, 63, 3)
    rows = [image.sum(axis=(1, 2), dtype=int).argmax() for image in (low, high)]
    assert rows[1] < rows[0]
    assert spectrogram_image(np.zeros(16000, np.float32), 16000).shape == (128, 63, 3)


def test_the_png_has_seconds_hertz_decibels_and_its_title(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    plain_savefig = Figure.savefig

    def remembering_savefig(self, *arguments, **options):
        drawn.append(self)
        return plain_savefig(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remembering_savefig)
    save_spectrogram_png(tmp_path / "a.png", sine(1000), 16000, "a tone at 1 kHz")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    picture, scale = drawn[0].axes
    assert (picture.get_xlabel(), picture.get_ylabel(), scale.get_ylabel()) == ("seconds", "Hz", "dB")
    assert picture.get_title() == "a tone at 1 kHz"
    assert picture.get_xlim() == pytest.approx((0, 1), abs=0.02)
    assert picture.get_ylim()[1] == pytest.approx(8000, rel=0.05)
