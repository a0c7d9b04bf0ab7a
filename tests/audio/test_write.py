"""What a sound file that we write holds, and what it never holds."""

import json
import resource

import numpy as np
import pytest
import soundfile

from ualm_jax.audio.io import BadAudio, loudness, read_audio
from ualm_jax.audio.write import SUFFIXES, Loudness, check_format, read_comment, write_sound
from ualm_jax.errors import UserError

NOISE = np.random.default_rng(0).uniform(-0.9, 0.9, 8000).astype(np.float32)
COMMENT = json.dumps({"prompt": "Zwei Töne — 猫", "settings": "x" * 5000})


@pytest.mark.parametrize("shape", [(1600,), (1600, 2)])
@pytest.mark.parametrize(
    "suffix, depth, subtype, error",
    [
        (".wav", None, "PCM_16", 2**-15),
        (".wav", "24", "PCM_24", 2**-23),
        (".wav", "float", "FLOAT", 0),
        (".flac", "16", "PCM_16", 2**-15),
        (".flac", "24", "PCM_24", 2**-23),
    ],
)
def test_samples_are_read_back_as_exactly_as_the_depth_allows(tmp_path, suffix, depth, subtype, error, shape):
    path, wav = tmp_path / f"a{suffix}", NOISE[:1600].repeat(2).reshape(-1, 2)[:, : len(shape)].squeeze()
    assert write_sound(path, wav, 16000, depth=depth) == 1.0
    back, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000 and soundfile.info(path).subtype == subtype and back.shape == shape
    np.testing.assert_allclose(back, wav, rtol=0, atol=error)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3"])
def test_lossy_files_sound_alike(tmp_path, suffix):
    wav = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000).astype(np.float32)
    write_sound(tmp_path / f"a{suffix}", wav, 16000)
    back = read_audio(tmp_path / f"a{suffix}", sample_rate=16000)
    middle = slice(8000, 24000)
    assert abs(len(back) - len(wav)) < 2400
    spectrum = np.abs(np.fft.rfft(back[middle]))
    assert np.argmax(spectrum) == 440 and np.abs(back[middle]).max() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_comment_comes_back_and_the_same_sound_gives_the_same_bytes(tmp_path, suffix):
    """A wav of floats and an Ogg stream would otherwise hold the time and a number drawn by chance."""
    depth = "float" if suffix == ".wav" else None
    for name in ("a", "b"):
        write_sound(tmp_path / f"{name}{suffix}", NOISE, 16000, depth=depth, comment=COMMENT)
    assert read_comment(tmp_path / f"a{suffix}") == COMMENT
    content = (tmp_path / f"a{suffix}").read_bytes()
    assert content == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".wav":
        peak = content.index(b"PEAK")
        assert content[peak + 12 : peak + 16] == bytes(4)
    if suffix == ".ogg":
        assert content[14:18] == (1).to_bytes(4, "little")
    write_sound(tmp_path / f"c{suffix}", NOISE, 16000)
    assert read_comment(tmp_path / f"c{suffix}") == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_sound_that_is_too_loud_is_turned_down_and_not_clipped(tmp_path, caplog, suffix):
    """The reference writes without a guard, so peaks are cut off (its defect 9). Lossy ones overshoot by themselves."""
    square = 2 * np.sign(np.sin(np.arange(16000) / 9)).astype(np.float32)
    square[::100] *= 1.5
    gain = write_sound(tmp_path / f"a{suffix}", square, 16000, loud=Loudness("rms", -0.5))
    assert "turned down by" in caplog.text
    back = soundfile.read(tmp_path / f"a{suffix}", dtype="float32")[0]
    assert np.abs(back).max() <= 1 and gain <= 0.999 / 3
    if suffix in (".wav", ".flac"):
        assert gain == pytest.approx(0.333)
        np.testing.assert_allclose(back, square * gain, atol=2**-15)


@pytest.mark.parametrize("measure", ["peak", "rms", "lufs"])
def test_loudness_is_what_was_asked_for(tmp_path, measure):
    wav = 0.03 * np.sin(2 * np.pi * 997 * np.arange(16000) / 16000).astype(np.float32)
    write_sound(tmp_path / "a.wav", wav, 16000, depth="float", loud=Loudness(measure, -20.0))
    back = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    found = {"peak": np.abs(back).max(), "rms": np.sqrt(np.mean(back**2)), "lufs": 10 ** (loudness(back, 16000) / 20)}
    assert 20 * np.log10(found[measure]) == pytest.approx(-20, abs=0.01)


@pytest.mark.parametrize("measure", ["peak", "rms", "lufs"])
@pytest.mark.parametrize("wav", [np.zeros(8000), np.full(8000, 1e-6), np.zeros(0)])
def test_silence_stays_silence(tmp_path, measure, wav):
    assert write_sound(tmp_path / "a.wav", wav.astype(np.float32), 16000, loud=Loudness(measure, -10.0)) == 1.0


def test_what_cannot_be_written_is_one_sentence_and_leaves_no_file(tmp_path):
    with pytest.raises(BadAudio, match="1 samples are NaN or infinite"):
        write_sound(tmp_path / "a.wav", np.array([0.0, np.nan], np.float32), 16000)
    with pytest.raises(BadAudio, match="written as .wav, .flac, .ogg or .mp3, not as .opus"):
        write_sound(tmp_path / "a.opus", NOISE, 16000)
    with pytest.raises(BadAudio, match="float was asked for, but a .flac file can have 16 or 24"):
        write_sound(tmp_path / "a.flac", NOISE, 16000, depth="float")
    with pytest.raises(BadAudio, match="can have none, for it is lossy"):
        check_format("a.MP3", "16")
    with pytest.raises(BadAudio, match="mp3 does not hold 1 channels of 96000 Hz"):
        write_sound(tmp_path / "a.mp3", NOISE, 96000)
    with pytest.raises(UserError, match="between -70 and 0 dB, got 3"):
        Loudness("peak", 3.0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.wav"
    write_sound(path, NOISE[:100], 16000)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            write_sound(path, NOISE, 16000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"] and path.read_bytes() == before
