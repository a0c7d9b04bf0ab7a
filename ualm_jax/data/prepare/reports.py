"""What is known of each shard while a dataset is being made."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ualm_jax.data.prepare.filters import Filters, Measures, SoundMeasures


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record that was left out.

    id: None where not even that could be read. filter: which one left it out (filters.py), "" for an unusable record.
    """

    id: str | None
    index: int
    filter: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Filtered:
    """A record that filters left out, and what they looked at, so that other filters can be applied later."""

    id: str
    index: int
    measures: Measures


@dataclasses.dataclass(frozen=True)
class Stored:
    """A record as it is stored, and what the finished dataset needs to know about it.

    index: in the source. length: positions without encoder frames. samples: behind its codes; speech: how many of them
    are speech. text_tokens: ids of all texts. clips: 16 kHz samples of each. pair: whether it is one; all that is
    counted then is of both conversations. hash: by which duplicates are found, None without target audio. unused:
    fields of the raw record that are not used. measures: for filters, None where they have been applied already.
    """

    data: bytes
    index: int
    length: int
    samples: int
    text_tokens: int
    clips: list[int]
    hash: int | None
    unused: tuple[str, ...] = ()
    measures: Measures | None = None
    pair: bool = False
    speech: int = 0


COLUMNS = ("index", "length", "samples", "text_tokens", "clips", "hash", "measures", "pair", "speech")  # of Stored


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """A written shard, before duplicates are looked for.

    made_of: identifies what it was made from. bad: unusable records. filtered: records that filters left out. columns:
    COLUMNS of the stored records. unused: in how many records each unused field stood.
    """

    shard: int
    made_of: str
    sha256: str
    bytes: int
    bad: list[Rejected]
    filtered: list[Filtered]
    columns: dict[str, list]
    unused: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def records(self) -> int:
        return len(self.columns["index"])

    def measures(self) -> Iterator[Measures]:
        """The measures of all records that filters have looked at here."""
        yield from (each for each in self.columns["measures"] if each is not None)
        yield from (each.measures for each in self.filtered)

    def fits(self, filters: Filters) -> bool:
        """Whether `filters` would leave out the same records."""
        kept = all(filters.dropped_by(each) is None for each in self.columns["measures"] if each is not None)
        return kept and all(filters.dropped_by(each.measures) is not None for each in self.filtered)

    def rejected(self, filters: Filters) -> list[Rejected]:
        """All records that are not in the shard, and why."""
        found = list(self.bad)
        for each in self.filtered:
            name = filters.dropped_by(each.measures)
            reason = f"record {each.index + 1} (id {each.id}): {filters.find(each.measures)[name]}"
            found.append(Rejected(each.id, each.index, name, reason))
        return found

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "ShardReport":
        columns = content["columns"] | {"measures": [_measures(each) for each in content["columns"]["measures"]]}
        columns.setdefault("pair", [False] * len(columns["index"]))  # written by a version that knew none
        columns.setdefault("speech", columns["samples"])  # by one that did not tell: all of it may be
        filtered = [Filtered(**each | {"measures": _measures(each["measures"])}) for each in content["filtered"]]
        return cls(
            **content | {"columns": columns, "filtered": filtered, "bad": [Rejected(**e) for e in content["bad"]]}
        )


def _measures(content: dict[str, Any] | None) -> Measures | None:
    if content is None:
        return None
    return Measures(tuple(SoundMeasures(**each) for each in content["sounds"]), content["length"])
