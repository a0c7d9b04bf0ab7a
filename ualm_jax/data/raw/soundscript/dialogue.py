"""Dialogues that begin with too little: the assistant asks until it knows enough, then plans and makes the sound."""

import numpy as np

from ualm_jax.data.raw.soundscript.phrase import noun, number_word
from ualm_jax.data.raw.soundscript.plan import PITCHED, Part, Plan


def asked_for(plan: Plan) -> Plan | None:
    """What a dialogue can find out of a plan: kinds, order, numbers and pitches. None where that is no plan."""
    try:
        parts = tuple(Part(part.kind, part.count, part.pitch) for part in plan.parts)
        plan = Plan(parts, ("then",) * (len(parts) - 1))
    except ValueError:
        return None
    kinds = [part.kind for part in parts]
    return plan if len(set(kinds)) == len(kinds) else None


def dialogue(plan: Plan, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(role, text) turns that end with the user, for a plan of `asked_for`.

    The user names the kinds in any order. The assistant asks, in this order, which comes first, which comes next (of
    three), how many of each, and how high what has a pitch shall be; an answer of "any" leaves the pitch open.
    """
    parts = [plan.parts[i] for i in rng.permutation(len(plan.parts))]
    wish = _pick(rng, ("Make {}.", "I want {}.", "Play {}."))
    turns = [("user", wish.format(_list([f"some {noun(part.kind, 2)}" for part in parts])))]
    left = list(plan.parts)
    for question in ("Which comes first?", "Which comes next?"):
        if len(left) > 1:
            turns += [("assistant", question), ("user", f"The {noun(left.pop(0).kind, 2)}.")]
    for part in plan.parts:
        turns += [("assistant", f"How many {noun(part.kind, 2)}?"), ("user", _sentence(number_word(part.count)))]
    for part in plan.parts:
        if part.kind in PITCHED:
            turns += [("assistant", f"How high is the {noun(part.kind)}?"), ("user", _sentence(part.pitch or "any"))]
    return turns


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]
