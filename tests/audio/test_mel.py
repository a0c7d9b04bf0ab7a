"""The mel front end against transformers' WhisperFeatureExtractor, and the lengths it promises."""

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor
from transformers.models.whisper import feature_extraction_whisper

from ualm_jax.audio.mel import (
    MelFrontEnd,
    MelWindow,
    feature_indices,
    frames_out,
    log_mel,
    stack_windows,
)
from ualm_jax.errors import UserError

THIRTY_SECONDS = 480_000
OMNI = MelFrontEnd(200, windowed=False, normalize=True, max_seconds=600.0)
AF_WHISPER = MelFrontEnd(3000, windowed=True, normalize=False, max_seconds=600.0)


def _sounds():
    """2 s and a bit (not a whole number of hops) of quite different waveforms."""
    rng = np.random.default_rng(0)
    t = np.arange(32_033) / 16_000
    noise = rng.normal(size=t.size)
    return {
        "noise": 0.1 * noise,
        "quiet noise": 1e-4 * noise,
        "noise beside its mean": 0.2 + 0.01 * noise,
        "sine": 0.5 * np.sin(2 * np.pi * 440 * t),
        "chirp": 0.3 * np.sin(2 * np.pi * (50 * t + 1500 * t * t)),
        "noise, then silence": 0.1 * noise * (t < 1),
        "click": np.eye(1, t.size, 5000)[0],
        "silence": np.zeros(t.size),
    }


SOUNDS = {name: wav.astype(np.float32) for name, wav in _sounds().items()}


def float64_extractor():
    """The extractor's NumPy path, which is float64. Its torch path is float32 and strays by up to 6e-5."""
    return mock.patch.object(feature_extraction_whisper, "is_torch_available", lambda: False)


def _extract(wav, pad_to_samples, normalize):
    extractor = WhisperFeatureExtractor(feature_size=128)
    features = extractor(
        wav,
        sampling_rate=16_000,
        max_length=pad_to_samples or len(wav),
        do_normalize=normalize,
        return_tensors="np",
    )
    return features["input_features"][0]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pad_to_samples", [None, THIRTY_SECONDS])
@pytest.mark.parametrize("name", SOUNDS)
def test_mel_equals_the_extractors(name, pad_to_samples, normalize):
    mel = log_mel(SOUNDS[name], pad_to_samples=pad_to_samples, normalize=normalize)
    with float64_extractor():
        theirs = _extract(SOUNDS[name], pad_to_samples, normalize)
    np.testing.assert_allclose(mel, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pad_to_samples", [None, THIRTY_SECONDS])
@pytest.mark.parametrize("name", ["noise", "quiet noise", "click", "silence"])
def test_mel_equals_the_extractors_torch_path_where_its_rounding_does_not_show(name, pad_to_samples, normalize):
    mel = log_mel(SOUNDS[name], pad_to_samples=pad_to_samples, normalize=normalize)
    np.testing.assert_allclose(mel, _extract(SOUNDS[name], pad_to_samples, normalize), atol=1e-5, rtol=0)


def test_a_waveform_that_cannot_be_a_spectrogram_is_a_programming_error():
    with pytest.raises(ValueError, match="does not fit"):
        log_mel(np.ones(161, np.float32), pad_to_samples=160)
    with pytest.raises(ValueError, match="too short"):
        log_mel(np.ones(200, np.float32))


@settings(max_examples=60, deadline=None)
@given(num_samples=st.integers(480, 20_000))
def test_an_unwindowed_clip_has_the_promised_frames(num_samples):
    (window,) = OMNI.features(np.ones(num_samples, np.float32))
    assert window.mel.shape == (128, window.frames)
    assert OMNI.window_frames(num_samples) == (window.frames,)
    assert OMNI.clip_length(num_samples) == frames_out(window.frames)


@settings(max_examples=60, deadline=None)
@given(num_samples=st.integers(321, 60_000))
def test_a_windowed_clip_has_the_extractors_frames_and_the_processors_rows(num_samples):
    """Windows of one second, so that clips have several. Rows as AudioFlamingo3Processor counts them."""
    front_end = MelFrontEnd(100, windowed=True, normalize=False, max_seconds=600.0)
    wav = np.random.default_rng(num_samples).normal(size=num_samples).astype(np.float32)
    pieces = [wav[start : start + 16_000] for start in range(0, num_samples, 16_000)]
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=1)
    with float64_extractor():
        theirs = extractor(pieces, sampling_rate=16_000, return_attention_mask=True, return_tensors="np")
    total = theirs["attention_mask"].sum()
    assert front_end.clip_length(num_samples) == ((total - 1) // 2 + 1 - 2) // 2 + 1
    ours = front_end.features(wav)
    for window, mel, mask in zip(ours, theirs["input_features"], theirs["attention_mask"], strict=False):
        np.testing.assert_allclose(window.mel, mel, atol=1e-5, rtol=0)
        assert window.frames == mask.sum()
    assert len(ours) == len(pieces) or theirs["attention_mask"][-1].sum() < 3  # gives no row: left out


def test_clips_up_to_the_maximum_are_taken_whole_and_longer_ones_refused():
    assert OMNI.clip_length(600 * 16_000) == 15_000
    assert AF_WHISPER.window_frames(600 * 16_000) == (3000,) * 20
    assert AF_WHISPER.clip_length(600 * 16_000) == 15_000
    assert AF_WHISPER.window_frames(31 * 16_000) == (3000, 100)
    for front_end in (OMNI, AF_WHISPER):
        with pytest.raises(UserError, match=r"lasts 600\.01 s, .* at most 600 s"):
            front_end.clip_length(600 * 16_000 + 160)


@pytest.mark.parametrize(("front_end", "shortest"), [(OMNI, 480), (AF_WHISPER, 321)])
def test_a_clip_without_a_single_row_is_refused(front_end, shortest):
    assert front_end.clip_length(shortest) == 1
    with pytest.raises(UserError, match="too few"):
        front_end.features(np.zeros(shortest - 1, np.float32))


def test_windows_stack_with_silence_behind_and_their_rows_are_found_again():
    windows = [MelWindow(np.full((128, frames), 1.0 + frames, np.float32), frames) for frames in (8, 5)]
    mels, lengths = stack_windows(windows, 12)
    assert mels.shape == (2, 128, 12)
    assert (mels[0, :, :8] == 9).all() and (mels[0, :, 8:] == 0).all() and (mels[1, :, 5:] == 0).all()
    assert lengths.tolist() == [8, 5]
    assert feature_indices([8, 5], 12).tolist() == [0, 1, 3]  # 3 rows a window, of which 2 and 1 are real


def test_the_front_end_does_not_need_jax():
    code = "import sys, ualm_jax.audio.mel; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
