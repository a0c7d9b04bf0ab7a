"""Which weights made an answer, so that it can be made again with the same."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from ualm_jax.generate.step import Work
from ualm_jax.generate.work import to_names


def _none() -> dict[str, str]:
    return {}


@dataclasses.dataclass(frozen=True, eq=False)
class MadeBy:
    """What `ualm_jax.load` opened, and how. slots, sequences, work, window: see `parts.Parts`; programs that differ in
    them can round in other ways. enhance: the folder of the enhancer, "" for none. read_weights: finds out `weights`,
    which takes a while.
    """

    path: str = ""
    step: int = 0
    int8: bool = False
    slots: int = 0
    window: int = 0
    enhance: str = ""
    read_weights: Callable[[], dict[str, str]] = _none
    sequences: int | None = None
    work: Work | None = None

    @functools.cached_property
    def weights(self) -> dict[str, str]:
        """Fingerprints of model, codec, tokenizer and enhancer (weights/fingerprints.py), those that are there."""
        return self.read_weights()

    def to_mapping(self) -> dict[str, Any]:
        """Ready for JSON, without the weights."""
        always = {name: getattr(self, name) for name in ("path", "step", "int8", "slots", "window")}
        work = None if self.work is None else to_names(self.work)
        unusual = {"sequences": self.sequences, "work": work, "enhance": self.enhance}
        return always | {name: value for name, value in unusual.items() if value}
