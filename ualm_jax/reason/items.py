"""A file of wishes: a line each, as plain text or as JSON."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from ualm_jax.generate.jobs_items import key_of


@dataclasses.dataclass(frozen=True)
class WishItem:
    """One line. id: names its folder, by default the number of its line from 0, as five digits.

    plan: a rich caption to make it from, instead of the model's. answers: to the questions of a dialogue, in their
    order. seconds, seed: None for those of the job, plus the number of the line.
    """

    id: str
    prompt: str
    plan: str | None = None
    answers: list[str] = dataclasses.field(default_factory=list)
    seconds: int | float | None = None
    seed: int | None = None

    TYPES: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        "id": str,
        "prompt": str,
        "plan": str,
        "answers": list,
        "seconds": (int, float),
        "seed": int,
    }

    @property
    def key(self) -> str:
        """Changes with all that is asked for."""
        return key_of(self)
