"""What was heard as a plan, so that it can be told in words, compared with a plan and accepted for an open prompt."""

import itertools
import math
from collections.abc import Sequence

from ualm_jax.data.raw.soundscript import Event, Part, Plan
from ualm_jax.data.raw.soundscript.plan import BANDS, GAPS, MIDI, PITCHED, SECONDS, STRUCK_SECONDS, SUSTAINED, WITHIN
from ualm_jax.evaluate.soundscript.judge import PITCH_CENTS

_NAMED = {number: note for note, number in MIDI.items()} | {
    number: band for band, numbers in BANDS.items() for number in numbers
}


def plan_of(heard: Sequence[Event]) -> Plan | None:
    """The plan that events (of hear.hear) keep best, without levels; None for what no plan can be.

    Durations, pauses and pitches are rounded to what a plan can say. Like events that follow each other at the pace of
    a part are one part.
    """
    try:
        return _plan(heard) if heard else None
    except ValueError:
        return None


def _plan(heard: Sequence[Event]) -> Plan:
    parts, links, last = [_part(heard[0])], [], heard[0]
    over = len(heard) > 1 and heard[1].start < last.end - 0.05 and last.kind == "tone"
    for before, event in itertools.pairwise(heard):
        part = _part(event)
        pause = event.start - before.start - _lasts(before)
        gaps = GAPS if over or not _alike(before, event) else GAPS | {None: WITHIN}
        link = min(gaps, key=lambda name: abs(gaps[name] - pause))
        if over and event is heard[1]:
            parts, links = [*parts, part], ["while"]
        elif (link is None or over) and _alike(before, event):
            parts[-1] = Part(part.kind, parts[-1].count + 1, parts[-1].pitch, parts[-1].duration)
        else:
            parts, links = [*parts, part], [*links, link]
    return Plan(tuple(parts), tuple(links))


def _part(event: Event) -> Part:
    kind = event.label if event.label != "pink" else "white"
    pitch = duration = None
    if kind in PITCHED:
        midi = 69 + 12 * math.log2(event.pitch_hz / 440)
        pitch = _NAMED[min(_NAMED, key=lambda number: abs(number - midi))]
    if kind in SUSTAINED:
        duration = min(SECONDS, key=lambda name: abs(math.log(SECONDS[name] / event.duration)))
    return Part(kind, 1, pitch, duration)


def _alike(a: Event, b: Event) -> bool:
    if a.label != b.label or _part(a).duration != _part(b).duration:
        return False
    return a.kind not in PITCHED or abs(1200 * math.log2(a.pitch_hz / b.pitch_hz)) <= PITCH_CENTS


def _lasts(event: Event) -> float:
    return STRUCK_SECONDS.get(event.kind, event.duration)
