"""A plan in words: one sentence that says all of it. Some ways of saying it are never used in training."""

import itertools

import numpy as np

from ualm_jax.data.raw.soundscript.plan import Part, Plan, is_held_out

_HELD_OUT = 8  # one in so many frames
_MOST_WORDS = 25
_TRIES = 30
_NUMBERS = ("", "a", "two", "three", "four")
_TIMES = ("", "once", "twice", "three times", "four times")

# {s} takes the plural's "s", {es} its "es".
NOUNS = {
    "tone": ("tone{s}", "note{s}"),
    "buzz": ("buzz{es}", "buzzing tone{s}"),
    "rise": ("rising tone{s}", "upward sweep{s}"),
    "fall": ("falling tone{s}", "downward sweep{s}"),
    "white": ("hiss{es}", "burst{s} of white noise"),
    "brown": ("rumble{s}", "burst{s} of brown noise"),
    "click": ("click{s}", "dry click{s}"),
    "pluck": ("pluck{s}", "plucked string{s}"),
    "kick": ("kick{s}", "kick drum hit{s}", "thump{s}"),
    "snare": ("snare{s}", "snare drum hit{s}"),
    "hat": ("hi-hat{s}", "cymbal tick{s}"),
    "clap": ("clap{s}", "hand clap{s}"),
}
BEEP = "beep{s}"  # a short tone

INTROS = ("{}", "you hear {}", "play {}", "make {}", "the sound of {}")
_BEFORE_FIRST = INTROS[:3]
LINKS = {
    "then": (", then {}", " followed by {}", " and then {}", ", next {}"),
    "at once": (", immediately followed by {}", " and at once {}", ", right away {}"),
    "pause": (", then after a pause {}", ", a pause, then {}", " and after a pause {}"),
}
LAST = (", and finally {}", ", and at the end {}")  # of three parts and more
TURNED = ("{1} after {0}", "{0} before {1}")
TURNED_FIRST = ("before {1}, {0}", "after {0}, {1}")  # which only begin a sentence
WHILE = ("{0} with {1} over it", "{1} over {0}", "{1} during {0}", "while {0} lasts, {1}")


def phrase(plan: Plan, rng: np.random.Generator, held_out: bool = False) -> str | None:
    """A sentence of at most 25 words, in a frame that is held out from training, or in one that is not.

    None where no such frame was found: plans of one event have few frames.
    """
    for _ in range(_TRIES):
        frame, text = _sentence(plan, rng)
        if is_held_out(frame, _HELD_OUT) == held_out and len(text.split()) <= _MOST_WORDS:
            return text[0].upper() + text[1:] + "."
    return None


def plain(plan: Plan) -> str:
    """The one sentence that says a plan in the first words for everything: the answer to "say it plainly"."""
    _, text = _sentence(plan, None)
    return text[0].upper() + text[1:] + "."


def noun(kind: str, count: int = 1) -> str:
    """The first word for a kind: "click", "clicks"."""
    return _plural(NOUNS[kind][0], count)


def number_word(count: int) -> str:
    """ "one", "two", ..."""
    return "one" if count == 1 else _NUMBERS[count]


def describe(part: Part, rng: np.random.Generator | None = None, times: bool = False, louder: bool = False) -> str:
    """A noun phrase; without `rng`, in the first words. times: say "a click twice" for "two clicks"; louder: compare
    with the part before."""
    count = 1 if times else part.count
    name, duration = _pick(rng, NOUNS[part.kind]), part.duration
    if part.kind == "tone" and duration == "short" and _chance(rng, 0.6):
        name, duration = BEEP, None
    level = part.level and part.level + ("er" if louder else "")
    band = part.pitch if part.pitch in ("low", "high") else None
    words = [word for word in (level, duration, band) if word] + [_plural(name, count)]
    if part.pitch not in (None, "low", "high"):
        words += ["at", part.pitch]
    text = " ".join(words)
    article = ("an" if text[0] in "aeiou" else "a") if count == 1 else _NUMBERS[count]
    return f"{article} {text}" + (f" {_TIMES[part.count]}" if times else "")


def _sentence(plan: Plan, rng: np.random.Generator | None) -> tuple[str, str]:
    """What was chosen besides nouns, and the sentence."""
    parts = plan.parts
    times = any(part.count > 1 for part in parts) and _chance(rng, 0.3)
    louder = [False] + [bool(b.level and not a.level and _chance(rng, 0.5)) for a, b in itertools.pairwise(parts)]
    told = [describe(part, rng, times, compared) for part, compared in zip(parts, louder, strict=True)]
    if plan.overlaps:
        way = _pick(rng, WHILE)
        return f"{way} {times} {any(louder)}", way.format(*told)
    intro = _pick(rng, INTROS)
    if plan.links == ("then",) and not any(louder) and _chance(rng, 0.3):
        way = _pick(rng, TURNED + (TURNED_FIRST if intro == "{}" else ()))
        return f"{intro} {way} {times}", intro.format(way.format(*told))
    first = len(parts) > 1 and intro in _BEFORE_FIRST and _chance(rng, 0.2)
    ways = [_pick(rng, LINKS[link]) for link in plan.links]
    if len(parts) > 2 and plan.links[-1] == "then" and _chance(rng, 0.3):
        ways[-1] = _pick(rng, LAST)
    text = ("first " if first else "") + told[0]
    text += "".join(itertools.starmap(str.format, zip(ways, told[1:], strict=True)))
    return f"{intro} {first} {ways} {times} {any(louder)}", intro.format(text)


def _plural(name: str, count: int) -> str:
    return name.format(s="s" if count > 1 else "", es="es" if count > 1 else "")


def _pick(rng: np.random.Generator | None, choices):
    return choices[0 if rng is None else int(rng.integers(len(choices)))]


def _chance(rng: np.random.Generator | None, probability: float) -> bool:
    return rng is not None and rng.random() < probability
