"""What every supply of captioned sounds looks like."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ualm_jax.errors import UserError


class BadRecord(UserError):
    """One record can not be used: the message names it and says why. The records around it are fine.

    id: of the record, None where not even that can be read.
    """

    def __init__(self, message: str, id: str | None = None):
        super().__init__(message)
        self.id = id


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Something in the raw data that is not a record and is not used: a member of a tar file, a file of
    a folder, a column.

    name: of it, or of the first of `count` that have the same reason. reason: why it is not used.
    """

    name: str
    reason: str
    count: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedSound:
    """A sound with a sentence about it.

    wav: [N] float32, full scale is 1, at `sample_rate` Hz; [N, C] where a source has more than one channel.
    scene: what was generated, as a JSON-able dict (soundscript.Scene.to_dict); None for recorded sound.
    unused: fields of its record that are not used.
    """

    id: str
    caption: str
    wav: Float[np.ndarray, "N"] | Float[np.ndarray, "N C"]
    sample_rate: int
    scene: dict[str, Any] | None
    unused: tuple[str, ...] = ()


@runtime_checkable
class SoundSource(Protocol):
    """Random access to captioned sounds. Pure: the same index gives the same sound in any process.

    `source[index]` raises BadRecord where that one record is unusable and IndexError outside 0..len-1.
    left_out: what it passes over, other than records.
    """

    name: str
    left_out: Sequence[LeftOut]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CaptionedSound: ...

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able, and different for any two sources that may give different sounds."""
        ...
