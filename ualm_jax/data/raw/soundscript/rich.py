"""A plan as a rich caption, exactly."""

import dataclasses

from ualm_jax.data.raw.soundscript.phrase import noun, number_word
from ualm_jax.data.raw.soundscript.plan import SUSTAINED, Part, Plan
from ualm_jax.tokens.rich_caption import RichCaption

_ORDINALS = ("", "second ", "third ", "fourth ")
_LINKS = {"then": ", then {}", "pause": ", then after a pause {}", "at once": ", and at once {}"}


def rich_caption(plan: Plan) -> RichCaption:
    """Events are named after their kind; where a kind comes again in another way, "second tone" and so on.

    Attributes: the number; of what is sustained the duration, "medium" where it is neither short nor long; the pitch,
    and the level where it is loud or soft.
    """
    names = []
    for index, part in enumerate(plan.parts):
        again = sum(other.kind == part.kind for other in plan.parts[:index])
        names.append(_ORDINALS[again] + noun(part.kind))
    if plan.overlaps:
        layout = f"{names[1]} during {names[0]}"
    elif len(names) == 1:
        layout = ""
    else:
        layout = names[0] + "".join(_LINKS[link].format(name) for link, name in zip(plan.links, names[1:], strict=True))
    return RichCaption(tuple(names), layout, tuple(zip(names, map(_attributes, plan.parts), strict=True)))


def by_ear(plan: Plan) -> Plan | None:
    """The plan without levels, which a listener cannot name; None where parts are told apart by nothing else."""
    try:
        return Plan(tuple(dataclasses.replace(part, level=None) for part in plan.parts), plan.links)
    except ValueError:
        return None


def _attributes(part: Part) -> tuple[str, ...]:
    words = [number_word(part.count)]
    if part.kind in SUSTAINED:
        words.append(part.duration or "medium")
    if part.pitch is not None:
        words.append(part.pitch if part.pitch in ("low", "high") else f"at {part.pitch.lower()}")
    return tuple(words + ([part.level] if part.level else []))
