"""Short, open prompts ("something that falls and lands"), and which plans are acceptable answers to them."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from ualm_jax.data.raw.soundscript.plan import BANDS, MIDI, Part, Plan

_DRUMS = ("kick", "snare", "hat")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """texts: ways to say it. accepts: whether a plan is an answer, whatever its levels. example: draws one that is."""

    name: str
    texts: tuple[str, ...]
    accepts: Callable[[Plan], bool]
    example: Callable[[np.random.Generator], Plan]


def _kinds(plan: Plan) -> list[str]:
    return [part.kind for part in plan.parts]


def _events(plan: Plan) -> int:
    return sum(part.count for part in plan.parts)


def _heights(plan: Plan) -> list[float]:
    """MIDI number of every pitched part, in the middle of its band where no note is named."""
    return [float(np.mean(MIDI[p.pitch] if p.pitch in MIDI else BANDS[p.pitch])) for p in plan.parts]


def _melody(plan: Plan, way: int) -> bool:
    """At least two pitched parts of a kind, each higher (way 1) or lower (way -1) than the one before."""
    kinds = _kinds(plan)
    if len(kinds) < 2 or len(set(kinds)) > 1 or kinds[0] not in ("tone", "buzz", "pluck"):
        return False
    heights = _heights(plan)
    return all((b - a) * way > 0 for a, b in itertools.pairwise(heights))


def _alarm(rng: np.random.Generator) -> Plan:
    kind = _pick(rng, ("tone", "buzz"))
    return Plan((Part(kind, int(rng.integers(3, 5)), "high", "short", _pick(rng, (None, "loud"))),))


def _lands(rng: np.random.Generator) -> Plan:
    return Plan(
        (Part("fall", 1, None, _pick(rng, ("short", None, "long"))), Part("kick")), (_pick(rng, ("at once", "then")),)
    )


def _rocket(rng: np.random.Generator) -> Plan:
    return Plan(
        (Part("brown", 1, None, "long"), Part("rise", 1, None, _pick(rng, (None, "long")))),
        (_pick(rng, ("at once", "then")),),
    )


def _beat(rng: np.random.Generator) -> Plan:
    kinds = [str(kind) for kind in rng.permutation(_DRUMS)[: int(rng.integers(2, 4))]]
    return Plan(tuple(Part(kind) for kind in kinds), ("then",) * (len(kinds) - 1))


def _walk(rng: np.random.Generator) -> Plan:
    return Plan((Part(_pick(rng, ("click", "kick")), int(rng.integers(3, 5)), level=_pick(rng, (None, "soft"))),))


def _applause(rng: np.random.Generator) -> Plan:
    return Plan((Part("clap", int(rng.integers(3, 5)), level=_pick(rng, (None, "loud"))),))


def _tune(way: int) -> Callable[[np.random.Generator], Plan]:
    def draw(rng: np.random.Generator) -> Plan:
        kind = _pick(rng, ("tone", "buzz", "pluck"))
        notes = sorted(rng.choice(list(MIDI), size=int(rng.integers(2, 4)), replace=False), key=MIDI.get)[::way]
        return Plan(tuple(Part(kind, 1, str(note)) for note in notes), ("then",) * (len(notes) - 1))

    return draw


def _wind(rng: np.random.Generator) -> Plan:
    return Plan((Part("white", int(rng.integers(1, 3)), None, "long", _pick(rng, (None, "soft"))),))


PROMPTS = (
    Prompt(
        "alarm",
        ("A short alarm", "An alarm", "Something that warns me", "A sound to wake me"),
        lambda p: (
            len(p.parts) == 1
            and p.parts[0].kind in ("tone", "buzz")
            and _events(p) >= 3
            and p.parts[0].duration == "short"
            and (p.parts[0].pitch == "high" or MIDI.get(p.parts[0].pitch, 0) > 71)
        ),
        _alarm,
    ),
    Prompt(
        "landing",
        ("Something that falls and lands", "A thing falls to the floor", "A fall and a thud"),
        lambda p: _kinds(p) == ["fall", "kick"] and p.parts[0].count == p.parts[1].count == 1 and p.links != ("pause",),
        _lands,
    ),
    Prompt(
        "rocket",
        ("A rocket takes off", "A rocket", "Something big takes off"),
        lambda p: _kinds(p) == ["brown", "rise"] and p.parts[0].duration == "long" and p.links != ("pause",),
        _rocket,
    ),
    Prompt(
        "beat",
        ("A drum beat", "Some drums", "A short rhythm on the drums"),
        lambda p: len(p.parts) > 1 and set(_kinds(p)) <= set(_DRUMS),
        _beat,
    ),
    Prompt(
        "steps",
        ("Someone walks", "Steps on the floor", "Footsteps"),
        lambda p: len(p.parts) == 1 and p.parts[0].kind in ("click", "kick") and _events(p) >= 3,
        _walk,
    ),
    Prompt(
        "applause",
        ("Applause", "Someone liked it", "A short applause"),
        lambda p: _kinds(p) == ["clap"] and _events(p) >= 3,
        _applause,
    ),
    Prompt("up", ("A tune that goes up", "Notes that climb"), lambda p: _melody(p, 1), _tune(1)),
    Prompt("down", ("A tune that goes down", "Notes that sink"), lambda p: _melody(p, -1), _tune(-1)),
    Prompt(
        "wind",
        ("Wind", "The wind blows", "A storm of wind"),
        lambda p: _kinds(p) == ["white"] and p.parts[0].duration == "long",
        _wind,
    ),
)


def draw_prompt(rng: np.random.Generator, held_out: bool = False) -> tuple[Prompt, str, Plan]:
    """A prompt, a way to say it (the last of each is held out from training), and a plan that is accepted."""
    prompt = _pick(rng, PROMPTS)
    text = prompt.texts[-1] if held_out else _pick(rng, prompt.texts[:-1])
    while (plan := prompt.example(rng)).held_out:
        pass
    return prompt, text, plan


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]
