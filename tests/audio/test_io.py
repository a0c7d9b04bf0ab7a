"""Sound files: every format comes in as mono float32 at the asked rate, broken ones with a reason."""

import struct

import numpy as np
import pytest
import soundfile

from ualm_jax.audio.io import BadAudio, loudness, read_audio, write_wav
from ualm_jax.errors import UserError


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


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_segment_is_that_part_of_the_whole_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 48000), 16000)
    whole = read_audio(path, sample_rate=16000)
    np.testing.assert_array_equal(read_audio(path, sample_rate=16000, start=0.5, end=1.25), whole[8000:20000])
    np.testing.assert_array_equal(read_audio(path, sample_rate=16000, start=2.0), whole[32000:])


def test_a_segment_is_read_without_decoding_what_lies_around_it(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros(160000), 16000)
    asked = []
    plain_read = soundfile.SoundFile.read

    def counting_read(self, frames=-1, **options):
        asked.append(frames)
        return plain_read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting_read)
    read_audio(tmp_path / "a.wav", sample_rate=16000, start=9.0, end=9.5)
    assert asked == [8000]


def cut(path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "w64", "rf64"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (80000, 2)), 16000)
    read_audio(path, sample_rate=16000)
    cut(path, 0.6)
    with pytest.raises(BadAudio, match=f"a.{suffix}"):
        read_audio(path, sample_rate=16000)


def test_a_truncated_wav_is_refused_even_where_the_segment_is_there(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(440, 1.0, 16000), 16000)
    cut(tmp_path / "a.wav", 0.9)
    with pytest.raises(BadAudio, match="header promises 32000 bytes but 28795 are there"):
        read_audio(tmp_path / "a.wav", sample_rate=16000, end=0.1)


def test_a_streamed_wav_that_never_learnt_its_length_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(440, 1.0, 16000), 16000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(read_audio(path, sample_rate=16000)) == 16000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad):
    samples = sine(440, 0.1, 16000)
    samples[70] = bad
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(BadAudio, match="sample 70 is NaN or infinite"):
        read_audio(tmp_path / "a.wav", sample_rate=16000)
    assert len(read_audio(tmp_path / "a.wav", sample_rate=16000, start=0.05)) == 800


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (1.5, None, "outside the file, which lasts 1 s"),
        (0.5, 1.01, "outside the file, which lasts 1 s"),
        (-0.1, 0.5, "outside the file, which lasts 1 s"),
        (0.5, 0.5, "no samples between"),
        (0.6, 0.5, "no samples between"),
        (1.0, None, "no samples between"),
    ],
)
def test_a_segment_outside_the_file_or_without_samples_is_refused(tmp_path, start, end, reason):
    soundfile.write(tmp_path / "a.wav", sine(440, 1.0, 16000), 16000)
    with pytest.raises(BadAudio, match=reason):
        read_audio(tmp_path / "a.wav", sample_rate=16000, start=start, end=end)


def test_a_missing_empty_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(BadAudio, match="no such file"):
        read_audio(tmp_path / "none.wav", sample_rate=16000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(BadAudio, match="no samples between"):
        read_audio(tmp_path / "empty.wav", sample_rate=16000)
    for name in ("text.wav", "text.raw", "text"):
        (tmp_path / name).write_text("not a sound")
        with pytest.raises(BadAudio, match="not a readable sound file"):
            read_audio(tmp_path / name, sample_rate=16000)
    assert issubclass(BadAudio, UserError)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("shape", [(1600,), (1600, 2)])
def test_what_is_written_is_read_back_within_16_bits(tmp_path, suffix, shape):
    wav = np.random.default_rng(0).uniform(-0.9, 0.9, shape).astype(np.float32)
    assert write_wav(tmp_path / f"a.{suffix}", wav, 16000) == 1.0
    back, rate = soundfile.read(tmp_path / f"a.{suffix}", dtype="float32")
    assert rate == 16000 and soundfile.info(tmp_path / f"a.{suffix}").subtype == "PCM_16"
    np.testing.assert_allclose(back, wav, atol=1 / 32768)


def test_a_sound_that_is_too_loud_is_turned_down_and_not_clipped(tmp_path, caplog):
    """The reference writes without a guard, so peaks are cut off (its defect 9)."""
    wav = sine(440, 0.1, 16000, amplitude=2.0)
    gain = write_wav(tmp_path / "a.wav", wav, 16000)
    assert gain == pytest.approx(0.999 / np.abs(wav).max())
    assert "turned down by 6.0 dB" in caplog.text
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], wav * gain, atol=1 / 32768)


def test_a_sound_that_is_not_finite_leaves_no_file(tmp_path):
    with pytest.raises(BadAudio, match="1 samples are NaN or infinite"):
        write_wav(tmp_path / "a.wav", np.array([0.0, np.nan], np.float32), 16000)
    with pytest.raises(BadAudio, match="not as .mp3"):
        write_wav(tmp_path / "a.mp3", np.zeros(10, np.float32), 16000)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", sine(440, 0.1, 16000), 16000)
    before = (tmp_path / "a.wav").read_bytes()

    def half_a_write(path, *arguments, **options):
        path.write_bytes(b"RIFF")
        raise OSError("disk full")

    monkeypatch.setattr(soundfile, "write", half_a_write)
    with pytest.raises(OSError, match="disk full"):
        write_wav(tmp_path / "a.wav", sine(880, 0.1, 16000), 16000)
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == before


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
