"""A dataset of sounds as `ualm data encode` reads it: with what was left out of it."""

import dataclasses
import functools
import os

from ualm_jax.data.dataset.sounds import SoundsInfo, open_sounds
from ualm_jax.data.prepare.filters import Filters
from ualm_jax.data.prepare.partial import read_quarantine
from ualm_jax.data.prepare.reports import Rejected
from ualm_jax.data.raw.sound_source import LeftOut
from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundsToEncode(SoundsInfo):
    """rejected: the records left out so far. not_used: what else of the source was not used."""

    rejected: tuple[Rejected, ...]
    not_used: tuple[LeftOut, ...]

    @property
    def remaining_filters(self) -> Filters:
        """For the codes: those that look at sounds and lengths have been applied."""
        return Filters(drop=tuple(self.made_from["filters"]["drop"]))

    @functools.cached_property
    def _left_out(self) -> set[int]:
        return {each.index for each in self.rejected}

    def indices(self, shard: int) -> list[int]:
        """Indices in the source of the records of a shard."""
        size = self.made_from["shard_size"]
        inputs = range(shard * size, (shard + 1) * size)
        return [index for index in inputs if index not in self._left_out][: self.shard_records[shard]]


def open_sounds_to_encode(directory: str | os.PathLike) -> SoundsToEncode:
    """Raises UserError as `open_sounds` does, and where the quarantine is damaged."""
    info = open_sounds(directory)
    path = info.directory / "quarantine.jsonl"
    try:
        rejected, not_used = read_quarantine(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: missing or damaged, expected what `ualm data prepare` wrote; copy or prepare the dataset again"
        ) from error
    return SoundsToEncode(**vars(info), rejected=tuple(rejected), not_used=tuple(not_used))
