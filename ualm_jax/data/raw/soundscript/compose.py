"""Inventing scenes: groups of like events, one after another, sometimes over a soft backdrop."""

import dataclasses

import numpy as np

from ualm_jax.data.raw.soundscript.scene import COLOURS, Event, Scene

LOUD_DB, MEDIUM_DB, SOFT_DB = -18.0, -26.0, -34.0

_DURATIONS = {
    "tone": (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0),
    "buzz": (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5),
    "sweep": (0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0),
    "noise": (0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0),
    "click": (0.01,),
    "pluck": (0.3, 0.5, 0.8, 1.0),
    "kick": (0.25,),
    "snare": (0.2,),
    "hat": (0.1,),
}
_MOST = {
    "tone": 4,
    "buzz": 3,
    "sweep": 3,
    "noise": 3,
    "click": 7,
    "pluck": 5,
    "kick": 5,
    "snare": 5,
    "hat": 7,
}
_STEPS = (0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)  # seconds from onset to onset within a group
_GAPS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # seconds of silence between groups
_SHORTEST_SILENCE = 0.04  # between the events of a group
_SCALE = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 17, 19)  # a major scale, in semitones


def compose(rng: np.random.Generator, min_seconds: float, max_seconds: float) -> Scene:
    """A random scene of min_seconds to max_seconds (at least 0.5 s), with one to four groups of events."""
    seconds = round(float(rng.uniform(min_seconds, max_seconds)), 2)
    time = float(rng.choice([0.05, 0.1, 0.2]))
    events: list[Event] = []
    previous: Event | None = None
    for _ in range(rng.choice([1, 2, 3, 4], p=[0.3, 0.4, 0.2, 0.1])):
        group = _group(rng, time, seconds - 0.05, previous)
        if not group:
            break
        events += group
        previous = group[-1]
        time = previous.end + float(rng.choice(_GAPS))
    if rng.random() < 0.15:
        events.insert(0, _backdrop(rng, seconds))
    return Scene(seconds=seconds, events=tuple(events), noise_seed=int(rng.integers(2**31)))


def _group(rng: np.random.Generator, start: float, limit: float, previous: Event | None) -> list[Event]:
    """One to seven events of one kind between `start` and `limit`; none if nothing fits any more."""
    fitting = {
        kind: [d for d in durations if start + d <= limit]
        for kind, durations in _DURATIONS.items()
        if previous is None or kind != previous.kind
    }
    kinds = [kind for kind, durations in fitting.items() if durations]
    if not kinds:
        return []
    kind = str(rng.choice(kinds))
    duration = float(rng.choice(fitting[kind]))
    steps = [s for s in _STEPS if s >= duration + _SHORTEST_SILENCE]
    step = float(rng.choice(steps)) if steps else duration + 0.1
    most = min(_MOST[kind], 1 + int((limit - start - duration) / step + 1e-6))
    count = int(rng.integers(1, most + 1))
    first = Event(
        kind,
        0.0,
        duration,
        float(rng.choice([LOUD_DB, MEDIUM_DB, SOFT_DB], p=[0.25, 0.5, 0.25])),
        **_content(rng, kind),
    )
    pitches = [first.pitch_hz] * count
    if kind in ("tone", "buzz", "pluck") and count >= 2 and rng.random() < 0.5:
        pitches = _melody(rng, count)
    return [
        dataclasses.replace(first, start=round(start + i * step, 4), pitch_hz=pitch) for i, pitch in enumerate(pitches)
    ]


def _content(rng: np.random.Generator, kind: str) -> dict[str, float | str]:
    """What a kind has besides time and level."""
    if kind in ("tone", "buzz"):
        return {
            "pitch_hz": _note(int(rng.integers(45, 85))) if rng.random() < 0.5 else 10.0 * int(rng.integers(11, 200))
        }
    if kind == "pluck":
        return {"pitch_hz": _note(int(rng.integers(40, 77)))}
    if kind == "sweep":
        low = 50 * int(rng.integers(2, 21))
        high = 50 * round(low * rng.uniform(1.5, 4.0) / 50)
        begin, end = (low, high) if rng.random() < 0.5 else (high, low)
        return {"pitch_hz": float(begin), "end_pitch_hz": float(end)}
    if kind == "noise":
        return {"colour": str(rng.choice(COLOURS))}
    return {}


def _melody(rng: np.random.Generator, count: int) -> list[float]:
    """Notes of a major scale that rise, fall or wander; no two neighbours alike."""
    key = int(rng.integers(48, 66))
    degrees = rng.choice(len(_SCALE), size=count, replace=False)
    shape = rng.choice(["rise", "fall", "wander"])
    if shape != "wander":
        degrees = np.sort(degrees)[:: 1 if shape == "rise" else -1]
    return [_note(key + _SCALE[degree]) for degree in degrees]


def _note(midi: int) -> float:
    """Equal temperament with A4 (69) at 440 Hz, to a hundredth of a hertz."""
    return round(440.0 * 2 ** ((midi - 69) / 12), 2)


def _backdrop(rng: np.random.Generator, seconds: float) -> Event:
    kind = str(rng.choice(["noise", "buzz", "tone"]))
    content = (
        {"colour": str(rng.choice(COLOURS))} if kind == "noise" else {"pitch_hz": _note(int(rng.integers(45, 58)))}
    )
    return Event(kind, 0.0, seconds, SOFT_DB, **content)
