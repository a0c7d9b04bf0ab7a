"""Fundamental frequencies: of a steady partial, of harmonic sounds, and the straight line a sweep follows."""

import numpy as np
from jaxtyping import Float

from ualm_jax.evaluate.soundscript.segments import HOP, RATE

_LOWEST, _HIGHEST = 60.0, 2400.0  # Hz, of a fundamental
_LONGEST = RATE // 2  # samples that are looked at: half a second pins a pitch to a cent or two
_PADDED = 2**16  # samples of the transform: 0.24 Hz a bin
_FINE = 4  # lags of an autocorrelation in a sample
_CORRELATED = 2**14  # samples of its transform: half a second and the longest lag fit in
_FIRST_PEAK = 0.92  # of the highest: the shortest lag whose autocorrelation reaches this is the period
_HARMONICS = 6  # that refine a fundamental
_HARMONIC_SPAN = 0.03  # of a fundamental's multiple: where its partial is looked for
_SWEEP_WINDOW = 512  # samples
_SWEEP_PADDED = 4096
_WEAKEST = 10 ** (-15 / 10)  # power of a frame of a sweep, relative to the loudest, that still counts


def steady_pitch(wav: Float[np.ndarray, "N"]) -> float:
    """Frequency in Hz of the strongest partial."""
    power, per_bin = _spectrum(wav)
    return _peak(power, int(_LOWEST / per_bin / 2), len(power) - 1) * per_bin


def harmonic_pitch(wav: Float[np.ndarray, "N"]) -> float:
    """Fundamental in Hz of a periodic sound: from its autocorrelation, then from where its lowest partials lie.

    A sound without a period from 60 to 2400 Hz has the frequency of its strongest partial.
    """
    power, per_bin = _spectrum(wav)
    # At a quarter of a sample: between samples, the peak of a short period would look lower than that of two periods.
    shortest, longest = _FINE * int(RATE / _HIGHEST), _FINE * int(RATE / _LOWEST)
    lags = np.arange(shortest, longest)
    length = _FINE * min(len(wav), _LONGEST)
    here = _correlation(wav)[lags] / (1 - lags / max(length, longest + 1))
    peaks = 1 + np.flatnonzero((here[1:-1] >= here[:-2]) & (here[1:-1] > here[2:]))
    tops = [_vertex(here, int(peak)) for peak in peaks]
    highest = max((height for _, height in tops), default=0.0)
    if highest <= 0:
        return steady_pitch(wav)
    rough = _FINE * RATE / (shortest + next(lag for lag, height in tops if height >= _FIRST_PEAK * highest))
    total, weight = 0.0, 0.0
    for k in range(1, _HARMONICS + 1):
        near = k * rough * np.array([1 - _HARMONIC_SPAN, 1 + _HARMONIC_SPAN]) / per_bin
        if near[1] >= len(power) - 1:
            break
        at = _peak(power, int(near[0]), int(near[1]) + 1)
        strength = np.sqrt(power[round(at)]) * k  # a partial k times as high pins the fundamental k times as well
        total, weight = total + strength * at * per_bin / k, weight + strength
    return total / weight


def sweep_ends(wav: Float[np.ndarray, "N"]) -> tuple[float, float]:
    """Frequencies in Hz at the beginning and the end of a partial that moves in a straight line."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wav, _SWEEP_WINDOW // 2), _SWEEP_WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_SWEEP_WINDOW), _SWEEP_PADDED)) ** 2
    strongest = power.max(axis=1)
    # The outermost frames hold half a window of silence: what they show lies inside the sound, not at its edge.
    half = _SWEEP_WINDOW // 2 // HOP
    inside = slice(half, -half) if len(frames) > 4 * half else slice(None)
    time = (np.arange(len(frames)) * HOP / len(wav))[inside]
    weight = strongest[inside] * (strongest[inside] > _WEAKEST * strongest.max())
    top = power[inside].argmax(axis=1) * (RATE / _SWEEP_PADDED)
    # Twice: frames that lie far from the first line are slips.
    for _ in range(2):
        slope, begin = np.polyfit(time, top, 1, w=np.sqrt(weight))
        off = np.abs(top - begin - slope * time)
        weight = weight * (off <= max(60.0, 3 * np.median(off)))
    return float(max(begin, 1.0)), float(max(begin + slope, 1.0))


def _correlation(wav: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(_middle(wav), _CORRELATED)) ** 2
    return np.fft.irfft(power, _FINE * _CORRELATED)


def _middle(wav: np.ndarray) -> np.ndarray:
    """Half a second, faded."""
    first = max(0, (len(wav) - _LONGEST) // 2)
    part = wav[first : first + _LONGEST]
    return part * np.hanning(len(part) + 2)[1:-1]


def _spectrum(wav: np.ndarray) -> tuple[np.ndarray, float]:
    """Power of the middle of a sound, and Hz per bin."""
    return np.abs(np.fft.rfft(_middle(wav), _PADDED)) ** 2, RATE / _PADDED


def _peak(power: np.ndarray, first: int, stop: int) -> float:
    return _vertex(np.log(power + 1e-20), first + int(power[first:stop].argmax()))[0]


def _vertex(values: np.ndarray, at: int) -> tuple[float, float]:
    """Where the parabola through a maximum and its neighbours is highest, and how high.

    At most half a step away: the highest value of a range may be its edge, where the parabola has its top elsewhere.
    """
    if not 0 < at < len(values) - 1:
        return float(at), float(values[at])
    left, middle, right = values[at - 1 : at + 2]
    bend = left - 2 * middle + right
    offset = min(max(0.5 * (left - right) / bend, -0.5), 0.5) if bend < 0 else 0.0
    return at + offset, middle - 0.25 * (left - right) * offset
