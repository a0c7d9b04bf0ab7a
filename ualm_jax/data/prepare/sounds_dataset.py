"""A dataset whose sounds are not encoded yet, on disk: what `ualm data encode` reads.

It has the files of a finished dataset (dataset/folder.py), but its records hold sound instead of codes, and
`vocabulary` is null in dataset.json.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from ualm_jax.data.dataset.codec_sound import CodecShape
from ualm_jax.data.dataset.folder import content_key, read_description
from ualm_jax.data.prepare.filters import Filters
from ualm_jax.data.prepare.partial import read_quarantine
from ualm_jax.data.prepare.reports import Rejected
from ualm_jax.data.raw.sound_source import LeftOut
from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SoundsInfo:
    """As DatasetInfo. shape: of the codec that will encode the sounds. rejected: the records left out so far.
    not_used: what else of the source was not used."""

    directory: Path
    key: str
    shape: CodecShape
    records: int
    filters: dict[str, int]
    audio_hours: float
    heard_hours: float
    longest: int
    shards: tuple[Path, ...]
    shard_records: tuple[int, ...]
    shard_sha256: tuple[str, ...]
    made_from: dict[str, Any]
    rejected: tuple[Rejected, ...]
    not_used: tuple[LeftOut, ...]

    @property
    def quarantined(self) -> int:
        return len(self.rejected)

    @property
    def remaining_filters(self) -> Filters:
        """For the codes: those that look at sounds and lengths have been applied."""
        return Filters(drop=tuple(self.made_from["filters"]["drop"]))

    @property
    def unused(self) -> int:
        return sum(each.count for each in self.not_used)

    @functools.cached_property
    def _left_out(self) -> set[int]:
        return {each.index for each in self.rejected}

    def indices(self, shard: int) -> list[int]:
        """Indices in the source of the records of a shard."""
        size = self.made_from["shard_size"]
        inputs = range(shard * size, (shard + 1) * size)
        return [index for index in inputs if index not in self._left_out][: self.shard_records[shard]]


def open_sounds(directory: str | os.PathLike) -> SoundsInfo:
    """Raises UserError where there is no such dataset, or its sounds are codes already."""
    directory = Path(directory)
    content = read_description(directory)
    try:
        if content["vocabulary"] is not None:
            raise UserError(f"{directory}: its sounds are codes already; train on it as it is")
        rejected, not_used = read_quarantine(directory / "quarantine.jsonl")
        return SoundsInfo(
            directory=directory,
            key=content_key(content),
            shape=CodecShape(**content["audio"]),
            **{
                name: content["counts"][name]
                for name in ("records", "filters", "audio_hours", "heard_hours", "longest")
            },
            shards=tuple(directory / shard["name"] for shard in content["shards"]),
            shard_records=tuple(shard["records"] for shard in content["shards"]),
            shard_sha256=tuple(shard["sha256"] for shard in content["shards"]),
            made_from=content["made_from"],
            rejected=tuple(rejected),
            not_used=tuple(not_used),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory / 'dataset.json'}: damaged ({error!r}), prepare the dataset again") from error
