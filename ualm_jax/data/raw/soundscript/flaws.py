"""Scenes that go wrong on purpose: a plan, and another that differs in one way a critic can name."""

import dataclasses

import numpy as np

from ualm_jax.data.raw.soundscript.plan import LABELS, MOST_EVENTS, NOTES, PITCHED, SUSTAINED, Part, Plan

FLAWS = ("missing", "extra", "order", "count", "pitch", "duration", "kind")


def flawed(plan: Plan, rng: np.random.Generator) -> tuple[str, Plan]:
    """The name of a flaw, and the plan with it. Another plan always comes out."""
    while True:
        name = FLAWS[int(rng.integers(len(FLAWS)))]
        try:
            spoilt = _spoil(plan, name, rng)
        except ValueError:
            continue
        if spoilt is not None and spoilt != plan:
            return name, spoilt


def _spoil(plan: Plan, name: str, rng: np.random.Generator) -> Plan | None:
    parts, links = list(plan.parts), list(plan.links)
    at = int(rng.integers(len(parts)))
    part = parts[at]
    if name == "missing":
        if len(parts) == 1:
            return None
        del parts[at]
        links = [] if plan.overlaps else links[: len(parts) - 1]
    elif name == "extra":
        absent = [kind for kind in LABELS if kind not in {each.kind for each in parts}]
        parts.append(Part(_pick(rng, absent)))
        links.append("then")
    elif name == "order":
        if len(parts) == 1 or plan.overlaps:
            return None
        at = int(rng.integers(len(parts) - 1))
        parts[at], parts[at + 1] = parts[at + 1], parts[at]
    elif name == "count":
        counts = [count for count in range(1, MOST_EVENTS + 1) if abs(count - part.count) == 1]
        parts[at] = dataclasses.replace(part, count=_pick(rng, counts))
    elif name == "pitch" and part.kind in PITCHED:
        parts[at] = dataclasses.replace(part, pitch=_pick(rng, ("low", "high", *NOTES)))
    elif name == "duration" and part.kind in SUSTAINED:
        parts[at] = dataclasses.replace(part, duration=_pick(rng, ("short", None, "long")))
    elif name == "kind":
        parts[at] = Part(_pick(rng, LABELS), part.count, level=part.level)
    return Plan(tuple(parts), tuple(links))


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]
