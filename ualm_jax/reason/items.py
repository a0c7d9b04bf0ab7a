"""A file of wishes: a line each, as plain text or as JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ualm_jax.errors import UserError
from ualm_jax.fields import Seed, check_value
from ualm_jax.generate.jobs_items import key_of


@dataclasses.dataclass(frozen=True)
class WishItem:
    """One line. id: names its folder, by default the number of its line from 0, as five digits.

    plan: a rich caption to make it from, instead of the model's. answers: texts, to the questions of a dialogue, in
    their order. seconds, seed: None for those of the job, plus the number of the line.
    """

    id: str
    prompt: str
    plan: str | None = None
    answers: list[Any] = dataclasses.field(default_factory=list)
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

    def __post_init__(self):
        if self.seed is not None:
            check_value(self.seed, Seed, "seed")
        if not all(isinstance(answer, str) for answer in self.answers):
            raise UserError(f"answers must be texts, got {self.answers!r}.")

    @property
    def key(self) -> str:
        """Changes with all that is asked for."""
        return key_of(self)
