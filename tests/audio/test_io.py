"""Sound files: every format comes in as mono float32 at the asked rate, broken ones with a reason."""

import numpy as np
import pytest
import soundfile

from ualm_jax.audio.io import loudness, read_audio


def sine(hz: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def strongest_hz(wav: np.ndarray, rate: int) -> float:
    return float(np.fft.rfftfreq(len(wav), 1 / rate)[np.abs(np.fft.rfft(wav * np.hanning(len(wav)))).argmax()])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_any_format_and_rate_comes_in_as_mono_float32_at_the_asked_rate(tmp_path, suffix, rate):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([sine(440, 1.0, rate)] * 2, axis=1), rate)
    wav = read_audio(path, sample_rate=16000)
    assert wav.dtype == np.float32 and wav.ndim == 1
    assert abs(len(wav) - 16000) <= 1
    assert strongest_hz(wav, 16000) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(wav[2000:-2000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)


def test_the_same_rate_keeps_the_samples(tmp_path):
    samples = sine(440, 0.1, 16000)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", sample_rate=16000), samples)


def test_stereo_is_mixed_down_where_the_reference_drops_the_second_channel(tmp_path):
    """The reference keeps channel 0 only, so what is recorded on the right is lost (its defect 9)."""
    left, right = sine(300, 1.0, 16000), sine(1000, 1.0, 16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    wav = read_audio(tmp_path / "a.wav", sample_rate=16000)
    np.testing.assert_allclose(wav, (left + right) / 2, atol=1e-7)


def test_reading_twice_gives_the_same_bits(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, (44100, 2)), 44100)
    first, second = (read_audio(tmp_path / "a.wav", sample_rate=16000) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("seconds", [0.1, 0.3999, 0.4, 0.4001, 1.0])
def test_loudness_of_a_full_scale_997_hz_sine_is_minus_3_lufs(seconds):
    """The calibration point of ITU-R BS.1770-4; short sounds are measured as one block."""
    tolerance = 0.05 if seconds >= 0.4 else 0.5
    assert loudness(sine(997, seconds, 48000, amplitude=1.0), 48000) == pytest.approx(-3.01, abs=tolerance)


def test_loudness_follows_the_gain_and_silence_has_none():
    wav = sine(997, 1.0, 16000)
    assert loudness(wav, 16000) - loudness(wav / 10, 16000) == pytest.approx(20, abs=1e-3)
    assert loudness(np.zeros(16000, np.float32), 16000) == -np.inf


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_loudness_accepts_every_length(rate):
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, rate).astype(np.float32)
    for samples in [*range(1, 200, 7), *range(int(0.4 * rate) - 5, int(0.4 * rate) + 5)]:
        assert loudness(wav[:samples], rate) < 0
