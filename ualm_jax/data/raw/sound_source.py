"""What every supply of captioned sounds looks like."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ualm_jax.errors import UserError


class BadRecord(UserError):
    """One record can not be used: the message names it and says why. The records around it are fine."""


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedSound:
    """A mono sound with a sentence about it.

    wav: [N] float32, full scale is 1, at `sample_rate` Hz.
    scene: what was generated, as a JSON-able dict (soundscript.Scene.to_dict); None for recorded sound.
    """

    id: str
    caption: str
    wav: Float[np.ndarray, "N"]
    sample_rate: int
    scene: dict[str, Any] | None


@runtime_checkable
class SoundSource(Protocol):
    """Random access to captioned sounds. Pure: the same index gives the same sound in any process.

    `source[index]` raises BadRecord where that one record is unusable and IndexError outside 0..len-1.
    """

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CaptionedSound: ...

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able, and different for any two sources that may give different sounds."""
        ...
