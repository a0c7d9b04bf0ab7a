"""A dataset that is being made: `OUT.partial`. After a kill at any moment it can be continued."""

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from ualm_jax.data.raw.sound_source import LeftOut
from ualm_jax.errors import UserError

_READ_TOGETHER = 64  # records


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
class Stored:
    """A record as it is stored, and what the finished dataset needs to know about it.

    index: in the source. length: positions without encoder frames. samples: behind its codes. text_tokens: ids of all
    texts. clips: 16 kHz samples of each. hash: by which duplicates are found, None without target audio. unused: fields
    of the raw record of which nothing is made.
    """

    data: bytes
    index: int
    length: int
    samples: int
    text_tokens: int
    clips: list[int]
    hash: int | None
    unused: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """A written shard, before duplicates are looked for.

    flagged: how many records each filter found. rejected: records that are not in it. columns: the fields of `Stored`
    except data and unused, with the values of all records. unused: in how many records each unused field stood.
    """

    shard: int
    sha256: str
    bytes: int
    flagged: dict[str, int]
    rejected: list[Rejected]
    columns: dict[str, list]
    unused: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def records(self) -> int:
        return len(self.columns["index"])

    @property
    def bad(self) -> list[Rejected]:
        """The unusable records."""
        return [rejected for rejected in self.rejected if not rejected.filter]


class PartialDataset:
    """Shards that are written one by one, each a function of a fixed part of the input, by any process.

    `partial/progress` holds what the finished dataset does not need: what it is made from, shards and their reports
    until duplicates are left out, and files that are being written. Two processes may write the same shard: they
    write the same bytes, and a file appears whole. Raises UserError if something else is in the way.
    """

    def __init__(self, partial: Path):
        self.partial = partial.absolute()
        self.progress = self.partial / "progress"
        self._plan = self.progress / "made_from.json"
        unknown = self.partial.exists() and any(path != self.progress for path in self.partial.iterdir())
        if unknown and not self.complete and not self._plan.is_file():
            raise UserError(f"{partial}: in the way, and not an unfinished dataset; remove it")

    @property
    def complete(self) -> bool:
        """Whether only the final name is missing."""
        return (self.partial / "dataset.json").is_file()

    def begin(self, made_from: dict[str, Any], num_shards: int) -> None:
        """Raises UserError if the dataset was begun with something else."""
        self.made_from = json.loads(json.dumps(made_from))  # as it will be read back
        self.num_shards = num_shards
        if self.complete:
            check_made_from(self.partial, made_from)
        elif self._plan.is_file():
            _compare(self.partial, json.loads(self._plan.read_text()), made_from)
        else:
            self.progress.mkdir(parents=True, exist_ok=True)
            self.write("progress/made_from.json", json.dumps(made_from).encode())

    def shard_name(self, shard: int) -> str:
        return f"train.array_record-{shard:05d}-of-{self.num_shards:05d}"

    def report(self, shard: int) -> ShardReport | None:
        """None for a shard that is not written yet."""
        path = self._report(shard)
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        return ShardReport(**content | {"rejected": [Rejected(**each) for each in content["rejected"]]})

    def reports(self) -> Iterator[ShardReport]:
        """Of the written shards, in order."""
        return (report for shard in range(self.num_shards) if (report := self.report(shard)) is not None)

    def has_report(self, shard: int) -> bool:
        return self._report(shard).is_file()

    def write_shard(self, shard: int, outcomes: Iterable[tuple[tuple[str, ...], Stored | Rejected]]) -> ShardReport:
        """Write a shard and then its report. outcomes: of each record, with the filters that found it."""
        self._report(shard).unlink(missing_ok=True)
        flagged, unused, left_out = Counter(), Counter(), []
        columns = {field.name: [] for field in dataclasses.fields(Stored) if field.name not in ("data", "unused")}

        def records() -> Iterator[bytes]:
            for filters, outcome in outcomes:
                flagged.update(filters)
                if isinstance(outcome, Rejected):
                    left_out.append(outcome)
                    continue
                unused.update(set(outcome.unused))
                for name, values in columns.items():
                    values.append(getattr(outcome, name))
                yield outcome.data

        sha256, size = _write_records(self.progress, self.progress / self.shard_name(shard), records())
        counts = dict(sorted(flagged.items())), left_out, columns, dict(sorted(unused.items()))
        report = ShardReport(shard, sha256, size, *counts)
        self.write(f"progress/{shard:05d}.json", json.dumps(dataclasses.asdict(report)).encode())
        return report

    def keep_shard(self, shard: int) -> None:
        """Make the written shard part of the dataset."""
        made, final = self._paths(shard)
        if made.exists():
            os.replace(made, final)

    def keep_shard_without(self, shard: int, left_out: set[int]) -> tuple[str, int, dict[int, bytes]]:
        """The same without the records at the places `left_out`. Returns sha256, bytes, and the records left out.

        The whole shard stays in `progress`, so that it can be decided anew after an interruption.
        """
        made, final = self._paths(shard)
        if not made.exists():
            os.replace(final, made)
        dropped = {}

        def kept() -> Iterator[bytes]:
            for place, record in enumerate(read_records(made)):
                if place in left_out:
                    dropped[place] = record
                else:
                    yield record

        return *_write_records(self.progress, final, kept()), dropped

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the partial dataset. It appears whole or not at all."""
        beside = _unfinished(self.progress)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.partial / name)

    def write_quarantine(self, rejected: Iterable[Rejected], unused: Iterable[LeftOut] = ()) -> Path:
        """One line of JSON each: records with their index, then what is no record with how many there are."""
        lines = [json.dumps(dataclasses.asdict(each)) + "\n" for each in (*rejected, *unused)]
        self.write("quarantine.jsonl", "".join(lines).encode())
        return self.partial / "quarantine.jsonl"

    def publish(self, out: Path) -> None:
        """Give the complete dataset its name. `dataset.json` must be the last file that was written."""
        if self.progress.exists():
            shutil.rmtree(self.progress)
        os.replace(self.partial, out)

    def _report(self, shard: int) -> Path:
        return self.progress / f"{shard:05d}.json"

    def _paths(self, shard: int) -> tuple[Path, Path]:
        return self.progress / self.shard_name(shard), self.partial / self.shard_name(shard)


def partial_of(out: Path) -> Path:
    """Where the new dataset `out` is made. Raises UserError if `out` exists."""
    if out.exists():
        raise UserError(f"{out}: exists already, choose another folder or remove it")
    return out.with_name(out.name + ".partial")


def check_made_from(directory: Path, made_from: dict[str, Any]) -> None:
    """Raises UserError if the dataset in `directory` was made from something else."""
    _compare(directory, json.loads((directory / "dataset.json").read_text())["made_from"], made_from)


def _compare(directory: Path, before: dict[str, Any], made_from: dict[str, Any]) -> None:
    made_from = json.loads(json.dumps(made_from))  # as it has been read back
    changed = [key for key in made_from if before.get(key) != made_from[key]]
    if changed:
        raise UserError(
            f"{directory}: begun with another {', '.join(changed)}; finish it with what it was begun with, or remove it"
        )


def read_quarantine(path: Path) -> tuple[list[Rejected], list[LeftOut]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    records = [Rejected(**entry) for entry in entries if "index" in entry]
    return records, [LeftOut(**entry) for entry in entries if "index" not in entry]


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a shard in order. Raises UserError where it is damaged."""
    try:
        reader = ArrayRecordReader(os.fspath(path))
        total = reader.num_records()
        for start in range(0, total, _READ_TOGETHER):
            yield from reader.read(start, min(start + _READ_TOGETHER, total))
        reader.close()
    except RuntimeError as error:
        raise UserError(f"{path}: damaged ({str(error) or 'truncated'}); copy or prepare the dataset again") from error


def _write_records(folder: Path, path: Path, records: Iterable[bytes]) -> tuple[str, int]:
    """Write a shard at `path`, whole or not at all, through a file in `folder`. Returns its sha256 and bytes."""
    beside = _unfinished(folder)
    # Groups of one record, because records are read in random order.
    writer = ArrayRecordWriter(os.fspath(beside), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    with open(beside, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = beside.stat().st_size
    os.replace(beside, path)
    return digest, size


def _unfinished(folder: Path) -> Path:
    """A name that no other process on any machine uses."""
    return folder / f"unfinished-{uuid.uuid4().hex}"
