"""A plan as a rich caption, exactly."""

import dataclasses
from typing import Any

from ualm_jax.data.raw.soundscript.phrase import noun, number_word
from ualm_jax.data.raw.soundscript.plan import LABELS, MOST_EVENTS, SUSTAINED, Part, Plan
from ualm_jax.tokens.rich_caption import RichCaption

_ORDINALS = ("", "second ", "third ", "fourth ")
_ATTRIBUTES: dict[str, tuple[str, Any]] = {number_word(n): ("count", n) for n in range(1, MOST_EVENTS + 1)}
_ATTRIBUTES |= {"short": ("duration", "short"), "medium": ("duration", None), "long": ("duration", "long")}
_ATTRIBUTES |= {"low": ("pitch", "low"), "high": ("pitch", "high")}
_ATTRIBUTES |= {"loud": ("level", "loud"), "soft": ("level", "soft")}
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


def plan_of_rich(caption: RichCaption) -> Plan | None:
    """The inverse of rich_caption; None where the words of a caption are those of no plan."""
    kinds, parts = {noun(kind): kind for kind in LABELS}, []
    try:
        for name in caption.keywords:
            ordinal = next((word for word in _ORDINALS[1:] if name.startswith(word)), "")
            parts.append(_part(kinds[name.removeprefix(ordinal)], caption.attributes(name)))
        plan = Plan(tuple(parts), _links(caption))
        return plan if rich_caption(plan).keywords == caption.keywords else None
    except (KeyError, ValueError):
        return None


def _links(caption: RichCaption) -> tuple[str, ...]:
    """Raises ValueError for a layout that rich_caption does not write."""
    names = caption.keywords
    if len(names) == 1:
        return ()
    if len(names) == 2 and caption.layout == f"{names[1]} during {names[0]}":
        return ("while",)
    rest, links = caption.layout.removeprefix(names[0]), []
    for name in names[1:]:
        link = next((link for link, words in _LINKS.items() if rest.startswith(words.format(name))), None)
        if link is None:
            raise ValueError(f"no layout of {', '.join(names)}: {caption.layout}")
        links.append(link)
        rest = rest.removeprefix(_LINKS[link].format(name))
    if rest:
        raise ValueError(f"no layout of {', '.join(names)}: {caption.layout}")
    return tuple(links)


def _part(kind: str, attributes: tuple[str, ...]) -> Part:
    """Raises ValueError for attributes that no part has, or that stand twice."""
    fields = {}
    for word in attributes:
        name, value = _ATTRIBUTES.get(word, ("pitch", word.removeprefix("at ").upper()))
        if name in fields:
            raise ValueError(f"{name} stands twice: {', '.join(attributes)}")
        fields[name] = value
    return Part(kind, **fields)


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
