"""`tools/random_encoder.py` makes an encoder that a run opens, and that tells sounds apart."""

import pathlib
import subprocess
import sys

import numpy as np
from helpers.audio_encoders import run

from ualm_jax.weights.audio_tower import load_encoder

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "random_encoder.py"


def test_a_tiny_encoder_tells_sounds_apart(tmp_path):
    command = [sys.executable, TOOL, "--out", tmp_path / "encoder", "--no-normalize"]
    assert "width 64" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and "exists already" in again.stderr and "Traceback" not in again.stderr
    encoder = load_encoder(tmp_path / "encoder")
    assert not encoder.front_end.normalize
    time = np.arange(32000) / 16000
    tones = [0.1 * np.sin(2 * np.pi * hz * time).astype(np.float32) for hz in (300, 2000)]
    mels = np.concatenate([encoder.front_end.features(tone)[0].mel[None] for tone in tones])
    low, high = run(encoder, mels, [mels.shape[-1]] * 2)[0]
    assert low.shape == high.shape == (50, 64)
    assert np.isfinite(low).all() and np.abs(low - high).mean() > 0.1 * np.abs(low).mean()
