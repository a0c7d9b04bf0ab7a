"""Where something sounds: stretches of a waveform above silence, parted at deep valleys of its level."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from scipy.signal import find_peaks

RATE = 16000  # Hz, of every waveform that is checked
HOP = 80  # samples (5 ms) between the values of an envelope
_WINDOW = 160  # samples (10 ms) that a value is the level of
_FLOOR_DB = -46.0  # of full scale: softer is silence
_BELOW_PEAK_DB = 30.0  # below the loudest moment: softer is silence too (what a codec leaves in pauses)
_TRIM_DB = 24.0  # below a stretch's own peak: its ends
_JOIN = 7  # values (35 ms): shorter silence is a part of what it interrupts
_SHORTEST = 2  # values; shorter is a glitch
_VALLEY_DB = 12.0  # a valley this much deeper than both peaks beside it parts two sounds
_VALLEY_SMOOTH = 3  # values


class Stretch(NamedTuple):
    """Values first <= n < stop of the envelope."""

    first: int
    stop: int


def envelope_db(wav: Float32[np.ndarray, "N"]) -> Float[np.ndarray, "T"]:
    """RMS of 10 ms every 5 ms in dB of full scale, T = N // 80 + 1 values; value n is centred on sample 80 n."""
    padded = np.concatenate([np.zeros(_WINDOW // 2), wav.astype(np.float64), np.zeros(_WINDOW)])
    energy = np.concatenate([[0.0], np.cumsum(padded**2)])
    starts = np.arange(len(wav) // HOP + 1) * HOP
    return 10 * np.log10((energy[starts + _WINDOW] - energy[starts]) / _WINDOW + 1e-12)


def stretches(level: Float[np.ndarray, "T"]) -> list[Stretch]:
    """The sounds of an envelope in order. Sounds that overlap are one stretch."""
    return [part for run in runs(level) for part in parts(level, run)]


def runs(level: Float[np.ndarray, "T"]) -> list[Stretch]:
    """The stretches between silences."""
    joined = []
    for run in _loud(level > max(_FLOOR_DB, level.max() - _BELOW_PEAK_DB)):
        if joined and run.first - joined[-1].stop < _JOIN:
            run = Stretch(joined.pop().first, run.stop)
        joined.append(run)
    return joined


def _loud(loud: np.ndarray) -> list[Stretch]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]])))
    return [Stretch(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def parts(level: Float[np.ndarray, "T"], run: Stretch) -> list[Stretch]:
    """The sounds of a run: between deep valleys, each trimmed to its own loud middle, and no glitches."""
    inside = level[run.first : run.stop]
    smooth = np.convolve(np.pad(inside, _VALLEY_SMOOTH // 2, "edge"), np.ones(_VALLEY_SMOOTH) / _VALLEY_SMOOTH, "valid")
    valleys, _ = find_peaks(-smooth, prominence=_VALLEY_DB)
    bounds = [0, *valleys.tolist(), len(inside)]
    found = []
    for first, stop in zip(bounds, bounds[1:], strict=False):
        loud = np.flatnonzero(inside[first:stop] > inside[first:stop].max() - _TRIM_DB)
        found.append(Stretch(run.first + first + int(loud[0]), run.first + first + int(loud[-1]) + 1))
    return [part for part in found if part.stop - part.first >= _SHORTEST]
