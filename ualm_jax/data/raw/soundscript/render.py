"""A scene's samples: plain numpy synthesis, band-limited, faded at both ends so that only clicks click."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32

from ualm_jax.data.raw.soundscript.scene import Event, Scene

_LEVEL_WINDOW = 0.05  # seconds
_FADE = 0.005  # seconds
_TOP = 0.45  # of the sample rate: highest frequency that any event may hold
_CLAP_BURSTS = ((0.0, 0.006), (0.008, 0.006), (0.016, 0.035))  # seconds: when, and how fast they die away
_PICK_SOFTNESS = 12  # rounds of smoothing of the burst that sets a string going


class TooLoud(ValueError):
    """The events of a scene together exceed full scale."""


def render(scene: Scene, sample_rate: int) -> Float32[np.ndarray, "N"]:
    """N = round(scene.seconds * sample_rate) samples with a peak below 1.

    Raises TooLoud, or another ValueError where a pitch is too high for the sample rate.
    """
    wav = np.zeros(round(scene.seconds * sample_rate))
    for first, sound in events(scene, sample_rate):
        wav[first : first + len(sound)] += sound
    peak = np.abs(wav).max()
    if peak >= 1.0:
        raise TooLoud(f"the scene is too loud: it peaks at {peak:.2f} of full scale")
    return wav.astype(np.float32)


def events(scene: Scene, sample_rate: int) -> Iterator[tuple[int, Float[np.ndarray, "_"]]]:
    """For each event of a scene, the sample where it begins, and its samples."""
    total = round(scene.seconds * sample_rate)
    for index, event in enumerate(scene.events):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([scene.noise_seed, index])))
        first, stop = round(event.start * sample_rate), min(round(event.end * sample_rate), total)
        sound = _fade(_SYNTHESIS[event.kind](event, stop - first, sample_rate, rng), event, sample_rate)
        yield first, sound * 10 ** ((event.loudness_db - level_db(sound, sample_rate)) / 20)


def level_db(wav: Float[np.ndarray, "N"], sample_rate: int) -> float:
    """RMS of the loudest 50 ms (of all of it, if shorter) in dB of full scale; -inf for silence."""
    width = min(len(wav), round(_LEVEL_WINDOW * sample_rate))
    energy = np.concatenate([[0.0], np.cumsum(np.square(wav, dtype=np.float64))])
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.max(energy[width:] - energy[:-width]) / width))


def _fade(sound: np.ndarray, event: Event, rate: int) -> np.ndarray:
    """Raised-cosine ends. What is struck or plucked keeps its attack: it rises within 0.25 ms."""
    sustained = event.kind in ("tone", "buzz", "sweep", "noise")
    sound = sound.copy()
    rise = max(1, round((_FADE if sustained else 0.00025) * rate))
    fall = max(1, round(min(_FADE, event.duration / 4) * rate))
    sound[:rise] *= _half_cosine(rise)
    sound[-fall:] *= _half_cosine(fall)[::-1]
    return sound


def _half_cosine(n: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / n)


def _below_top(hz: float, rate: int) -> float:
    if not 0 < hz <= _TOP * rate:
        raise ValueError(f"a pitch of {hz} Hz can not be rendered at {rate} Hz")
    return hz


def _tone(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    return np.sin(2 * np.pi * _below_top(event.pitch_hz, rate) * np.arange(n) / rate)


def _buzz(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A sawtooth built from the harmonics that fit."""
    pitch = _below_top(event.pitch_hz, rate)
    t = np.arange(n) / rate
    return sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, int(_TOP * rate / pitch) + 1))


def _sweep(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Frequency moves in a straight line from pitch to end pitch."""
    begin, end = _below_top(event.pitch_hz, rate), _below_top(event.end_pitch_hz, rate)
    t = np.arange(n) / rate
    return np.sin(2 * np.pi * (begin * t + 0.5 * (end - begin) * t**2 / event.duration))


def _noise(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    slope = {"white": 0.0, "pink": -0.5, "brown": -1.0}[event.colour]
    return _shaped_noise(n, rate, rng, lambda hz: np.maximum(hz, 1.0) ** slope * (hz > 30))


def _click(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(n) / rate
    return np.sin(2 * np.pi * 2500 * t) * np.exp(-t / 0.001)


def _pluck(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Karplus-Strong: one period of noise goes round a loop that damps it (Karplus and Strong, 1983).

    The loop filter is [1/4, 1/2, 1/4] (one sample of delay) times a linear interpolator for the fraction
    of a sample by which the period is not whole.
    """
    period = rate / _below_top(event.pitch_hz, rate)
    whole, fraction = int(period), period - int(period)
    keep = 10 ** (-1.5 / (event.duration * event.pitch_hz))  # gain per period: 30 dB over the event
    taps = keep * np.convolve([0.25, 0.5, 0.25], [1 - fraction, fraction])
    shortest = whole - 1  # delay of the first tap; blocks of this length depend on earlier samples only
    if shortest < 1:
        raise ValueError(f"a string at {event.pitch_hz} Hz can not be rendered at {rate} Hz")
    history = whole + 3
    out = np.zeros(history + n)
    burst = rng.uniform(-1, 1, whole)
    for _ in range(_PICK_SOFTNESS):
        burst = 0.25 * np.roll(burst, 1) + 0.5 * burst + 0.25 * np.roll(burst, -1)
    out[history : history + whole] = (burst - burst.mean())[:n]
    for start in range(history + whole, history + n, shortest):
        stop = min(start + shortest, history + n)
        out[start:stop] = sum(tap * out[start - shortest - k : stop - shortest - k] for k, tap in enumerate(taps))
    return out[history:]


def _kick(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A sine that falls from 150 to 50 Hz while it dies away."""
    t = np.arange(n) / rate
    phase = 50 * t + 100 * 0.03 * (1 - np.exp(-t / 0.03))
    return np.sin(2 * np.pi * phase) * np.exp(-t / 0.08)


def _snare(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """The drum's body at 180 Hz and the rattle of its wires."""
    t = np.arange(n) / rate
    rattle = _shaped_noise(n, rate, rng, lambda hz: (hz > 1000).astype(float))
    return np.sin(2 * np.pi * 180 * t) * np.exp(-t / 0.05) + rattle * np.exp(-t / 0.06)


def _hat(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(n) / rate
    return _shaped_noise(n, rate, rng, lambda hz: (hz > 5000).astype(float)) * np.exp(-t / 0.03)


def _clap(event: Event, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Hands do not meet at once: three bursts of middle frequencies, 8 ms apart."""
    t = np.arange(n) / rate
    level = sum(np.where(t >= begin, np.exp(-(t - begin) / fall), 0) for begin, fall in _CLAP_BURSTS)
    return _shaped_noise(n, rate, rng, lambda hz: ((hz > 800) & (hz < 3000)).astype(float)) * level


def _shaped_noise(n: int, rate: int, rng: np.random.Generator, gain) -> np.ndarray:
    """Unit-RMS noise whose spectrum follows gain(hz) below the top frequency."""
    hz = np.fft.rfftfreq(n, 1 / rate)
    spectrum = np.fft.rfft(rng.standard_normal(n)) * gain(hz) * (hz <= _TOP * rate)
    noise = np.fft.irfft(spectrum, n)
    return noise / np.sqrt(np.mean(noise**2))


_SYNTHESIS = {
    "tone": _tone,
    "buzz": _buzz,
    "sweep": _sweep,
    "noise": _noise,
    "click": _click,
    "pluck": _pluck,
    "kick": _kick,
    "snare": _snare,
    "hat": _hat,
    "clap": _clap,
}
