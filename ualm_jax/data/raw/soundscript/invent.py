"""Inventing plans, and scenes that keep them."""

import numpy as np

from ualm_jax.data.raw.soundscript.plan import (
    BANDS,
    GAPS,
    LABELS,
    LEVEL_DB,
    MIDI,
    MOST_EVENTS,
    NOTES,
    OVER,
    OVER_PITCHES,
    PITCHED,
    SUSTAINED,
    WITHIN,
    Part,
    Plan,
)
from ualm_jax.data.raw.soundscript.scene import Event, Scene

_BEGIN = 0.1  # seconds of silence before the first event
_SHORTEST = 0.8  # seconds of a scene
_AFTER = 0.2  # seconds of silence after the last event
_FRAME = 0.02  # seconds: scenes are whole multiples
_NUMBER_OF_PARTS = (0.2, 0.4, 0.4)  # probabilities of 1, 2, 3
_OVERLAPS = 0.1  # of plans
_SWEEP_LOW, _SWEEP_RATIO = (48, 62), (2.0, 3.0)  # MIDI number of the lower end; the higher is so many times as high


def draw_plan(rng: np.random.Generator) -> Plan:
    """Any plan, those of held-out combinations too."""
    while True:
        try:
            return _overlapping(rng) if rng.random() < _OVERLAPS else _sequence(rng)
        except ValueError:  # too long, or neighbours alike
            continue


def realise(plan: Plan, rng: np.random.Generator) -> Scene:
    """A scene that is as the plan says. Another `rng` fills in differently what the plan leaves open."""
    events, time = [], _BEGIN
    for index, part in enumerate(plan.parts):
        if index:
            below = plan.parts[0].whole
            time = _BEGIN + (below - part.whole) / 2 if plan.overlaps else time + GAPS[plan.links[index - 1]]
        content = _content(part, rng)  # like events are exactly alike
        for _ in range(part.count):
            events.append(Event(start=round(time, 4), duration=part.seconds, **content))
            time += part.seconds + WITHIN
        time -= WITHIN
    return Scene(seconds_of(plan), tuple(events), int(rng.integers(2**31)))


def seconds_of(plan: Plan) -> float:
    """The duration of every scene of a plan, with the silence around it, in seconds."""
    seconds = max(_SHORTEST, _BEGIN + plan.whole + _AFTER)
    return round(np.ceil(seconds / _FRAME - 1e-6) * _FRAME, 2)


def hertz(midi: int) -> float:
    """Equal temperament with A4 (69) at 440 Hz, to a hundredth of a hertz."""
    return round(440.0 * 2 ** ((midi - 69) / 12), 2)


def _sequence(rng: np.random.Generator) -> Plan:
    number = 1 + int(rng.choice(len(_NUMBER_OF_PARTS), p=_NUMBER_OF_PARTS))
    counts = np.ones(number, int)
    for _ in range(int(rng.integers(0, MOST_EVENTS - number + 1))):
        counts[rng.integers(number)] += 1
    links = rng.choice(["then", "pause", "at once"], size=number - 1, p=[0.6, 0.2, 0.2])
    return Plan(tuple(_part(str(rng.choice(LABELS)), int(count), rng) for count in counts), tuple(map(str, links)))


def _overlapping(rng: np.random.Generator) -> Plan:
    below = Part("tone", 1, _pick(rng, OVER_PITCHES), "long", _level(rng))
    above = Part(_pick(rng, OVER), int(rng.integers(1, MOST_EVENTS)), level=_level(rng))
    return Plan((below, above), ("while",))


def _part(kind: str, count: int, rng: np.random.Generator) -> Part:
    pitch = duration = None
    if kind in PITCHED and rng.random() < 0.75:
        pitch = _pick(rng, ("low", "high")) if rng.random() < 0.35 else _pick(rng, NOTES)
    if kind in SUSTAINED:
        duration = _pick(rng, ("short", None, "long"))
    return Part(kind, count, pitch, duration, _level(rng))


def _level(rng: np.random.Generator) -> str | None:
    return _pick(rng, (None, None, "loud", "soft"))


def _content(part: Part, rng: np.random.Generator) -> dict:
    """The fields of an Event besides its times."""
    content = {"kind": part.kind, "loudness_db": LEVEL_DB[part.level]}
    if part.kind in ("white", "brown"):
        return content | {"kind": "noise", "colour": part.kind}
    if part.kind in ("rise", "fall"):
        low = hertz(int(rng.integers(_SWEEP_LOW[0], _SWEEP_LOW[1] + 1)))
        high = round(low * float(rng.uniform(*_SWEEP_RATIO)), 2)
        begin, end = (low, high) if part.kind == "rise" else (high, low)
        return content | {"kind": "sweep", "pitch_hz": begin, "end_pitch_hz": end}
    if part.kind in PITCHED:
        number = MIDI[part.pitch] if part.pitch in MIDI else _pick(rng, BANDS[part.pitch])
        return content | {"pitch_hz": hertz(number)}
    return content


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]
