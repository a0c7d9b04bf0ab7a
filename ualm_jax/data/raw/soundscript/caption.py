"""A scene in words. What a caption says is true of the scene; it need not say everything."""

import itertools
import math

import numpy as np

from ualm_jax.data.raw.soundscript.scene import Event, Scene

_LOUD_FROM_DB, _SOFT_UP_TO_DB = -20.0, -32.0
_NUMBERS = (
    "",
    "",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_STRUCK = ("click", "pluck", "kick", "snare", "hat")  # heard as moments, so "apart" means from onset to onset

# {s} takes the plural's "s".
_NOUNS = {
    "tone": ("tone{s}", "pure tone{s}", "sine tone{s}"),
    "buzz": ("buzzing tone{s}", "buzzing note{s}", "raspy buzzing tone{s}"),
    "click": ("click{s}", "dry click{s}"),
    "pluck": ("plucked string{s}", "plucked note{s}", "pluck{s} of a string"),
    "kick": ("kick drum hit{s}", "bass drum hit{s}", "thump{s} of a kick drum"),
    "snare": ("snare hit{s}", "snare drum hit{s}", "stroke{s} on a snare drum"),
    "hat": ("hi-hat hit{s}", "closed hi-hat hit{s}", "tick{s} of a hi-hat"),
}
_RISING = ("rising tone{s}", "upward sweep{s}", "rising chirp{s}")
_FALLING = ("falling tone{s}", "downward sweep{s}", "falling chirp{s}")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One English sentence; another `rng` phrases the same scene differently and leaves out other details."""
    groups = [list(group) for _, group in itertools.groupby(scene.foreground, key=_sameness)]
    text = _join(groups, rng)
    if scene.backdrop:
        behind = _backdrop(scene.backdrop, rng)
        patterns = ["over {behind}, {text}", "{text}, with {behind} throughout", "{text}, over {behind}"]
        text = _pick(rng, [*patterns, "with {behind} in the background, {text}"]).format(behind=behind, text=text)
    elif len(groups) == 1:
        text = _pick(rng, ["{}", "{}", "you hear {}", "the sound of {}"]).format(text)
    return text[0].upper() + text[1:] + "."


def _sameness(event: Event):
    """Neighbours that agree in this are told as one group; notes of different pitch are one melody."""
    sweep = (event.pitch_hz, event.end_pitch_hz) if event.kind == "sweep" else None
    return event.kind, event.duration, event.loudness_db, event.colour, sweep


def _join(groups: list[list[Event]], rng: np.random.Generator) -> str:
    parts = [_describe(group, rng) for group in groups]
    if len(parts) == 2 and rng.random() < 0.25:
        return _pick(rng, ["{1} after {0}", "{1}, preceded by {0}", "{0} before {1}"]).format(*parts)
    text = ("first " if len(parts) > 1 and rng.random() < 0.3 else "") + parts[0]
    for i, part in enumerate(parts[1:], start=1):
        links = [", then ", ", followed by ", f", and {_pause(groups[i - 1][-1], groups[i][0])} "]
        if i == len(parts) - 1 >= 2:
            links = [", and finally ", ", and at the end ", ", and then "]
        text += _pick(rng, links) + part
    return text


def _pause(before: Event, after: Event) -> str:
    gap = after.start - before.end
    return f"{_seconds(gap)} later" if gap >= 0.3 else "right after that"


def _describe(group: list[Event], rng: np.random.Generator) -> str:
    event, count = group[0], len(group)
    noun = _pick(rng, _nouns(event)).format(s="s" if count > 1 else "")
    adjectives = []
    if rng.random() < 0.7:
        adjectives += _level(event, rng)
    if event.duration <= 0.2 and event.kind in ("tone", "buzz", "sweep", "noise", "click") and rng.random() < 0.5:
        adjectives.append(_pick(rng, ["short", "brief"]))
    elif event.duration >= 1.0 and event.kind != "pluck" and rng.random() < 0.5:
        adjectives.append("long")
    phrase = " ".join([*adjectives, noun])
    phrase = f"{_number(count)} {phrase}" if count > 1 else _with_article(phrase)
    if event.pitch_hz is not None and rng.random() < 0.8:
        phrase += " " + _pitch(group, rng)
    if count > 1 and event.kind in _STRUCK and rng.random() < 0.5:
        phrase += _spacing(group)
    elif count == 1 and event.duration >= 0.5 and rng.random() < 0.3:
        phrase += f" lasting {_seconds(event.duration)}"
    return phrase


def _nouns(event: Event) -> tuple[str, ...]:
    if event.kind == "sweep":
        return _RISING if event.end_pitch_hz > event.pitch_hz else _FALLING
    if event.kind == "noise":
        amount = "burst" if event.duration <= 0.5 else "stretch"
        also = {"white": ("hissing sound{s}",), "pink": (), "brown": ("low rumbling sound{s}",)}[event.colour]
        return (f"{amount}{{s}} of {event.colour} noise", *also)
    return _NOUNS[event.kind] + (("beep{s}",) if event.kind == "tone" and event.duration <= 0.3 else ())


def _level(event: Event, rng: np.random.Generator) -> list[str]:
    if event.loudness_db >= _LOUD_FROM_DB:
        return ["loud"]
    return [_pick(rng, ["soft", "quiet", "faint"])] if event.loudness_db <= _SOFT_UP_TO_DB else []


def _pitch(group: list[Event], rng: np.random.Generator) -> str:
    first = group[0]
    if first.kind == "sweep":
        return f"from {first.pitch_hz:.0f} to {first.end_pitch_hz:.0f} Hz"
    pitches = [event.pitch_hz for event in group]
    names = _names(pitches, rng)
    steps = {math.copysign(1, b - a) if a != b else 0 for a, b in itertools.pairwise(pitches)}
    if steps <= {0}:
        return f"at {names[0]}"
    if len(steps) == 1 and 0 not in steps:
        way = "rising" if steps == {1} else "falling"
        return f"{way} from {names[0]} to {names[-1]}"
    return f"at {', '.join(names[:-1])} and {names[-1]}"


def _names(pitches: list[float], rng: np.random.Generator) -> list[str]:
    """Note names where all pitches are notes (half the time) or hertz."""
    semitones = [69 + 12 * math.log2(pitch / 440) for pitch in pitches]
    if all(abs(s - round(s)) < 0.02 for s in semitones) and rng.random() < 0.5:
        return [f"{_NOTES[round(s) % 12]}{round(s) // 12 - 1}" for s in semitones]
    return [f"{'' if pitch == round(pitch) else 'about '}{pitch:.0f} Hz" for pitch in pitches]


def _spacing(group: list[Event]) -> str:
    steps = [b.start - a.start for a, b in itertools.pairwise(group)]
    if max(steps) - min(steps) > 1e-3:
        return ""
    return " in quick succession" if steps[0] <= 0.25 else f" {_seconds(steps[0])} apart"


def _backdrop(event: Event, rng: np.random.Generator) -> str:
    if event.kind == "noise":
        return " ".join([*_level(event, rng), event.colour, "noise"])
    phrase = " ".join([*_level(event, rng), _pick(rng, ["steady", "constant"]), _nouns(event)[0].format(s="")])
    if event.pitch_hz is not None and event.kind != "sweep" and rng.random() < 0.5:
        phrase += f" at {_names([event.pitch_hz], rng)[0]}"
    return _with_article(phrase)


def _seconds(seconds: float) -> str:
    named = {0.5: "half a second", 0.75: "three quarters of a second", 1.0: "a second", 2.0: "two seconds"}
    rounded = round(seconds, 2)
    return named.get(rounded, f"{rounded:g} seconds")


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _pick(rng: np.random.Generator, choices) -> str:
    return choices[int(rng.integers(len(choices)))]
