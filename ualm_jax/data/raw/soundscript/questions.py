"""Questions about a plan whose answers are known exactly, and whether a given answer is right.

An answer is a word or two, or a sentence that there is only one way to say (phrase.plain).
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from ualm_jax.data.raw.soundscript.phrase import noun, number_word, plain
from ualm_jax.data.raw.soundscript.plan import LABELS, LEVEL_DB, PITCHED, SUSTAINED, Part, Plan


@dataclasses.dataclass(frozen=True)
class Asked:
    """kind: of question, such as "count"; for tables of results."""

    kind: str
    question: str
    answer: str


def is_right(answer: str, expected: str) -> bool:
    """Whether two answers say the same but for case, punctuation, spaces and an article before them."""
    return _bare(answer) == _bare(expected)


def ask(plan: Plan, rng: np.random.Generator) -> Asked:
    """A question of any kind that the plan has an answer to. None asks how loud a single sound is."""
    kinds = list(_QUESTIONS)
    while True:
        kind = kinds[int(rng.integers(len(kinds)))]
        found = _QUESTIONS[kind](plan, rng)
        if found is not None:
            return Asked(kind, *found)


def rework(plan: Plan, caption: str, rng: np.random.Generator) -> Asked | None:
    """A task of text alone, or None where it has no answer: rewriting, reordering, leaving out."""
    kind = ("rewrite", "reverse", "leave out", "double")[int(rng.integers(4))]
    if kind == "rewrite":
        return Asked(kind, f"Say it plainly: {caption}", plain(plan))
    try:
        if kind == "reverse":
            if len(plan.parts) == 1 or plan.overlaps:
                return None
            return Asked(kind, f"Turn the order round: {caption}", plain(Plan(plan.parts[::-1], plan.links[::-1])))
        alone = _alone(plan)
        if not alone:
            return None
        part = _pick(rng, alone)
        if kind == "double":
            if part.count != 1:
                return None
            parts = tuple(dataclasses.replace(each, count=2) if each is part else each for each in plan.parts)
            return Asked(kind, f"Let the {noun(part.kind)} sound twice: {caption}", plain(Plan(parts, plan.links)))
        if len(plan.parts) != 2:
            return None
        rest = Plan(tuple(each for each in plan.parts if each is not part))
        return Asked(kind, f"Leave out the {noun(part.kind, part.count)}: {caption}", plain(rest))
    except ValueError:
        return None


def _count(plan: Plan, rng: np.random.Generator):
    question = _pick(rng, ("How many sounds are there?", "How many sounds do you hear?", "Count the sounds."))
    return question, number_word(sum(part.count for part in plan.parts))


def _count_of_kind(plan: Plan, rng: np.random.Generator):
    kind = _pick(rng, LABELS) if rng.random() < 0.2 else _pick(rng, plan.parts).kind
    count = sum(part.count for part in plan.parts if part.kind == kind)
    return f"How many {noun(kind, 2)} are there?", number_word(count) if count else "none"


def _first(plan: Plan, rng: np.random.Generator):
    if len(plan.parts) == 1:
        return None
    return _pick(rng, ("What comes first?", "Which sound is the first?")), noun(plan.parts[0].kind)


def _last(plan: Plan, rng: np.random.Generator):
    if len(plan.parts) == 1 or plan.overlaps:
        return None
    return _pick(rng, ("What comes last?", "Which sound is the last?")), noun(plan.parts[-1].kind)


def _which_first(plan: Plan, rng: np.random.Generator):
    two = _two(_alone(plan), rng)
    if two is None or plan.overlaps:
        return None
    first = min(two, key=plan.parts.index)
    return f"Which came first, {_the(two[0])} or {_the(two[1])}?", _the(first)


def _before(plan: Plan, rng: np.random.Generator):
    two = _two(_alone(plan), rng)
    if two is None or plan.overlaps:
        return None
    yes = plan.parts.index(two[0]) < plan.parts.index(two[1])
    return f"Does {_the(two[0])} come before {_the(two[1])}?", "yes" if yes else "no"


def _there(plan: Plan, rng: np.random.Generator):
    there = {part.kind for part in plan.parts}
    kind = _pick(rng, plan.parts).kind if rng.random() < 0.5 else _pick(rng, [k for k in LABELS if k not in there])
    name = noun(kind)
    return f"Is there {'an' if name[0] in 'aeiou' else 'a'} {name}?", "yes" if kind in there else "no"


def _at_once(plan: Plan, rng: np.random.Generator):
    return "Do any sounds overlap?", "yes" if plan.overlaps else "no"


def _note(plan: Plan, rng: np.random.Generator):
    known = [part for part in _alone(plan) if part.pitch not in (None, "low", "high")]
    if not known:
        return None
    part = _pick(rng, known)
    return f"At which note {_is(part)} {_the(part)}?", part.pitch


def _band(plan: Plan, rng: np.random.Generator):
    known = [part for part in _alone(plan) if part.kind in PITCHED and part.pitch in ("low", "high")]
    if not known:
        return None
    part = _pick(rng, known)
    return f"{_is(part).capitalize()} {_the(part)} low or high?", part.pitch


def _duration(plan: Plan, rng: np.random.Generator):
    known = [part for part in _alone(plan) if part.kind in SUSTAINED and part.duration]
    if not known:
        return None
    part = _pick(rng, known)
    return f"{_is(part).capitalize()} {_the(part)} short or long?", part.duration


def _louder(plan: Plan, rng: np.random.Generator):
    two = _two(_alone(plan), rng)
    if two is None or two[0].level == two[1].level:
        return None
    louder = max(two, key=lambda part: LEVEL_DB[part.level])
    return f"Which is louder, {_the(two[0])} or {_the(two[1])}?", _the(louder)


_QUESTIONS: dict[str, Callable[[Plan, np.random.Generator], tuple[str, str] | None]] = {
    "count": _count,
    "count of kind": _count_of_kind,
    "first": _first,
    "last": _last,
    "which first": _which_first,
    "before": _before,
    "there": _there,
    "at once": _at_once,
    "note": _note,
    "low or high": _band,
    "short or long": _duration,
    "louder": _louder,
}


def _alone(plan: Plan) -> list[Part]:
    """The parts that are the only ones of their kind."""
    kinds = [part.kind for part in plan.parts]
    return [part for part in plan.parts if kinds.count(part.kind) == 1]


def _two(parts: list[Part], rng: np.random.Generator) -> list[Part] | None:
    return [parts[i] for i in rng.choice(len(parts), 2, replace=False)] if len(parts) > 1 else None


def _the(part: Part) -> str:
    return f"the {noun(part.kind, part.count)}"


def _is(part: Part) -> str:
    return "is" if part.count == 1 else "are"


def _bare(text: str) -> str:
    return re.sub(r"^(the|an?) ", "", " ".join(re.sub(r"[^\w\s#-]", " ", text.lower()).split()))


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]
