"""The fixed lists: captions of four kinds, and the sounds that they were written for.

seen         captions that are in the training set (language 2, seed 0, any count from 300 on), word for word
fresh        captions of the training language that the first 100 000 of seed 0 do not hold
combination  captions with a combination that training never has: a kind at a pitch, in a number, or after another
phrasing     captions in frames that training never uses

An item is fixed by its list and number; lists.json has ids and captions for those who judge other systems.
"""

import dataclasses
import importlib.resources
import json

import numpy as np
from jaxtyping import Float32

from ualm_jax.data.raw.soundscript import Plan, SoundScript2, render
from ualm_jax.data.raw.soundscript.invent import seconds_of
from ualm_jax.errors import UserError

LISTS = {"seen": ("train", 0), "fresh": ("train", 1_000_003), "combination": ("combination", 1_000_003)}
LISTS["phrasing"] = ("phrasing", 1_000_003)  # of which split and seed
RATE = 16000


@dataclasses.dataclass(frozen=True)
class Item:
    """id: "fresh-017". plan: what the caption says. index: of the sound in the source that LISTS names."""

    id: str
    list: str
    caption: str
    plan: Plan
    index: int

    def sound(self) -> Float32[np.ndarray, "N"]:
        """The sound that the caption was written for, at 16 kHz."""
        return render(_source(self.list).script(self.index).scene, RATE)


def items(
    lists: tuple[str, ...] = tuple(LISTS), limit: int | None = None, max_seconds: float = SoundScript2.max_seconds
) -> list[Item]:
    """The first `limit` (None: all) items of each list whose sounds last at most max_seconds.

    Raises UserError for a list that is not there, or has no such item.
    """
    stored = json.loads(importlib.resources.files(__package__).joinpath("lists.json").read_text())
    found = []
    for name in lists:
        if name not in LISTS:
            raise UserError(f"there is no list {name!r}; expected {', '.join(LISTS)}")
        chosen = []
        for entry in stored[name]:
            if len(chosen) == limit:
                break
            script = _source(name).script(entry["index"])
            if script.caption != entry["caption"]:
                raise UserError(f"SoundScript has changed: {entry['id']} would be {script.caption!r} now.")
            if seconds_of(script.plan) <= max_seconds:
                chosen.append(Item(entry["id"], name, script.caption, script.plan, entry["index"]))
        if not chosen:
            raise UserError(f"no sound of the list {name} lasts at most {max_seconds:g} s.")
        found += chosen
    return found


def _source(name: str) -> SoundScript2:
    split, seed = LISTS[name]
    return SoundScript2(2**31, seed, RATE, split)
