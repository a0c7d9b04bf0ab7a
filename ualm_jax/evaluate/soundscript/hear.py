"""From a waveform to the events in it, by rules: no scene, no caption and no learned part is consulted.

A stretch of sound is told by its spectrum (shares of its power), by how fast its level falls, and by whether one
partial holds its power.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from ualm_jax.data.raw.soundscript import Event, level_db
from ualm_jax.evaluate.soundscript.layers import layers
from ualm_jax.evaluate.soundscript.pitch import harmonic_pitch, steady_pitch, sweep_ends
from ualm_jax.evaluate.soundscript.segments import HOP, RATE, Stretch, envelope_db, parts, runs, stretches

STRUCK_SECONDS = {"click": 0.01, "kick": 0.25, "snare": 0.2, "hat": 0.1, "clap": 0.15}  # always as long as this
_WINDOW = 512  # samples of a spectrum
_HZ = np.fft.rfftfreq(_WINDOW, 1 / RATE)


def hear(wav: Float32[np.ndarray, "N"]) -> tuple[Event, ...]:
    """The events of a 16 kHz mono waveform in the order of their onsets; none in silence.

    Times have a resolution of 5 ms. What is struck lasts as long as its kind does; a pluck, until it has lost 24 dB.
    Raises ValueError for samples that are not finite.
    """
    if not np.isfinite(wav).all():
        raise ValueError("a waveform to be heard has finite samples only")
    if not len(wav):
        return ()
    level = envelope_db(wav)
    return tuple(event for run in runs(level) for event in _at_once(wav, level, run) or _in_turn(wav, level, run))


def _in_turn(wav: np.ndarray, level: np.ndarray, run: Stretch) -> list[Event]:
    events: list[Event] = []
    for stretch in parts(level, run):
        event = _event(wav, level, stretch)
        if events and events[-1].kind == event.kind == "noise":  # noise that was softer for a moment
            whole = Stretch(round(events[-1].start * RATE) // HOP, stretch.stop)
            events[-1] = _event(wav, level, whole)
        else:
            events.append(event)
    return events


def _at_once(wav: np.ndarray, level: np.ndarray, run: Stretch) -> list[Event]:
    """A long low tone and what is struck while it sounds, by onset; empty where a run is something else."""
    bands = layers(wav, level, run)
    if bands is None:
        return []
    found = []
    for band in bands:
        band_level = envelope_db(band.astype(np.float32))
        found.append([_event(band, band_level, each) for each in stretches(band_level)])
    below, above = found
    if [event.kind for event in below] != ["tone"] or not all(event.kind in STRUCK_SECONDS for event in above):
        return []
    return sorted(below + above, key=lambda event: event.start)


class _Shape(NamedTuple):
    """What a kind is told by. Shares are of the power of the stretch.

    loud: values of the envelope within 20 dB of the peak. drop: dB by which the level falls along a straight line, and
    evenness of the fall: minus the correlation of level and time.
    below_90, ...: share below so many Hz. centroid: Hz. partial: share around each frame's strongest frequency.
    octave, twelfth: share around two and three times that frequency. flatness: of the spectrum, 1 for white noise.
    """

    loud: int
    drop: float
    evenness: float
    below_90: float
    below_300: float
    above_1000: float
    above_4500: float
    centroid: float
    partial: float
    octave: float
    twelfth: float
    flatness: float


def _shape(wav: np.ndarray, level: np.ndarray, stretch: Stretch) -> _Shape:
    inside = level[stretch.first : stretch.stop]
    drop, evenness = _fall(inside)
    first = stretch.first * HOP
    padded = np.pad(wav[max(0, first - HOP) : stretch.stop * HOP], _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))) ** 2
    total = power.sum() + 1e-20
    share = power.sum(axis=0) / total
    at = power.argmax(axis=1)
    audible = share[(_HZ > 100) & (_HZ < 7000)] + 1e-12
    return _Shape(
        loud=int(np.sum(inside > inside.max() - 20)),
        drop=drop,
        evenness=evenness,
        below_90=float(share[_HZ < 90].sum()),
        below_300=float(share[_HZ < 300].sum()),
        above_1000=float(share[_HZ > 1000].sum()),
        above_4500=float(share[_HZ > 4500].sum()),
        centroid=float(share @ _HZ),
        partial=_around(power, at) / total,
        octave=_around(power, 2 * at) / total,
        twelfth=_around(power, 3 * at) / total,
        flatness=float(np.exp(np.log(audible).mean()) / audible.mean()),
    )


def _fall(inside: np.ndarray) -> tuple[float, float]:
    """dB along the straight line from the attack to the end, and minus the correlation of level and time."""
    attack = int(inside[: max(3, round(0.4 * len(inside)))].argmax())
    after = inside[attack : max(len(inside) - 1, attack + 2)]  # without the edge itself
    time = np.arange(len(after)) - (len(after) - 1) / 2
    spread = float(np.sqrt(time @ time)) or 1.0
    deviation = float(np.sqrt(np.sum((after - after.mean()) ** 2))) or 1.0
    fall = -float(time @ after) / spread
    return fall / spread * (len(after) - 1), fall / deviation


def _around(power: Float[np.ndarray, "T F"], at: np.ndarray) -> float:
    rows = np.arange(len(power))
    inside = at < power.shape[1] - 2
    return float(sum(power[rows[inside], np.maximum(at[inside] + k, 0)].sum() for k in range(-2, 3)))


def _event(wav: np.ndarray, level: np.ndarray, stretch: Stretch) -> Event:
    shape = _shape(wav, level, stretch)
    start, stop = stretch.first * HOP, min(len(wav), (stretch.stop - 1) * HOP + 1)
    sound = wav[start:stop].astype(np.float64)
    kind = _kind(shape)
    pitch, end_pitch = None, None
    if kind == "tone":
        begin, end = sweep_ends(sound)
        if max(begin / end, end / begin) >= _SWEEP_RATIO:
            kind, pitch, end_pitch = "sweep", begin, end
        else:
            pitch = steady_pitch(sound)
    elif kind in ("buzz", "pluck"):
        pitch = harmonic_pitch(sound)
    return Event(
        kind=kind,
        start=start / RATE,
        duration=STRUCK_SECONDS.get(kind, len(sound) / RATE),
        loudness_db=level_db(sound, RATE),
        pitch_hz=None if pitch is None else float(pitch),
        end_pitch_hz=None if end_pitch is None else float(end_pitch),
        colour=_colour(shape) if kind == "noise" else None,
    )


_SWEEP_RATIO = 1.17  # between its ends; sweeps have 1.33 or more


def _kind(shape: _Shape) -> str:
    """tone stands for sweep, too. The limits lie half way between what the kinds measure."""
    if shape.loud <= 9 and 1500 < shape.centroid <= 4500:
        return "click"
    if shape.above_4500 > 0.7:
        return "hat"
    if shape.drop >= 6 and shape.evenness >= 0.9:
        # Brown noise falls by chance, less evenly than a drum.
        if shape.below_90 > 0.2:
            return "kick" if shape.below_300 > 0.94 and shape.loud <= 50 else "noise"
        if shape.centroid < 1450:
            return "pluck"
        return "snare" if shape.below_300 > 0.12 or shape.above_4500 > 0.13 else "clap"
    if shape.partial > 0.5 and shape.below_90 < 0.2:
        return "buzz" if shape.octave > 0.06 and shape.twelfth > 0.015 else "tone"
    return "noise"


def _colour(shape: _Shape) -> str:
    if shape.below_300 > 0.68:
        return "brown"
    return "white" if shape.above_1000 > 0.65 else "pink"
