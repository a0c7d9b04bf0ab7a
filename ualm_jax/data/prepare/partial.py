"""A dataset in the making: `OUT.partial`, which a kill at any moment leaves fit to be continued."""

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

from ualm_jax.errors import UserError

_READ_TOGETHER = 64  # records


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record that was left out. id: None where not even that could be read. gate: which left it out (gates.py),
    "" for a record that can not be used."""

    id: str | None
    index: int
    gate: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Stored:
    """A record as it is stored, and what the finished dataset needs to know of it.

    index: in the source. rows: without encoder frames. samples: behind its codes; text_tokens: ids of all texts;
    clips: 16 kHz samples of each. hash: for the gate of duplicates, None where it makes no sound.
    """

    data: bytes
    index: int
    rows: int
    samples: int
    text_tokens: int
    clips: list[int]
    hash: int | None


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """A written shard, before duplicates are looked for.

    flagged: records that each gate found. rejected: what is not in it. columns: the fields of `Stored`, but for
    data, with a list of their values each.
    """

    shard: int
    sha256: str
    bytes: int
    flagged: dict[str, int]
    rejected: list[Rejected]
    columns: dict[str, list]

    @property
    def records(self) -> int:
        return len(self.columns["index"])

    @property
    def bad(self) -> list[Rejected]:
        """Those that can not be used."""
        return [rejected for rejected in self.rejected if not rejected.gate]


class PartialDataset:
    """Shards that are written one by one, each a function of a fixed part of the input, by any process.

    `partial/progress` holds what the finished dataset does not need: what it is made from, shards with their
    reports until their duplicates are left out, files that are being written. Two processes may write the same
    shard: they write the same, and a file appears whole. Raises UserError if something else is in the way.
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
        """Nothing is missing but its name."""
        return (self.partial / "dataset.json").is_file()

    def begin(self, made_from: dict[str, Any], num_shards: int) -> None:
        """Raises UserError if it was begun before with something else."""
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
        """None for a shard that is not written."""
        path = self._report(shard)
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        return ShardReport(**content | {"rejected": [Rejected(**each) for each in content["rejected"]]})

    def reports(self) -> Iterator[ShardReport]:
        """Those of the written shards, in order."""
        return (report for shard in range(self.num_shards) if (report := self.report(shard)) is not None)

    def has_report(self, shard: int) -> bool:
        return self._report(shard).is_file()

    def write_shard(self, shard: int, outcomes: Iterable[tuple[tuple[str, ...], Stored | Rejected]]) -> ShardReport:
        """Write a shard and then its report. Each outcome comes with the gates that found the record."""
        self._report(shard).unlink(missing_ok=True)
        flagged, left_out = Counter(), []
        columns = {field.name: [] for field in dataclasses.fields(Stored) if field.name != "data"}

        def records() -> Iterator[bytes]:
            for gates, outcome in outcomes:
                flagged.update(gates)
                if isinstance(outcome, Rejected):
                    left_out.append(outcome)
                    continue
                for name, values in columns.items():
                    values.append(getattr(outcome, name))
                yield outcome.data

        sha256, size = _write_records(self.progress, self.progress / self.shard_name(shard), records())
        report = ShardReport(shard, sha256, size, dict(sorted(flagged.items())), left_out, columns)
        self.write(f"progress/{shard:05d}.json", json.dumps(dataclasses.asdict(report)).encode())
        return report

    def place_whole(self, shard: int) -> None:
        """The written shard becomes part of the dataset as it is."""
        beside, place = self._places(shard)
        if beside.exists():
            os.replace(beside, place)

    def place_without(self, shard: int, left_out: set[int]) -> tuple[str, int, dict[int, bytes]]:
        """All but the records at the positions `left_out` become part of the dataset. The whole shard is kept
        beside, so that it can be decided anew after an interruption. Sha256, bytes, and the records left out."""
        beside, place = self._places(shard)
        if not beside.exists():
            os.replace(place, beside)
        dropped = {}

        def kept() -> Iterator[bytes]:
            for position, record in enumerate(read_records(beside)):
                if position in left_out:
                    dropped[position] = record
                else:
                    yield record

        return *_write_records(self.progress, place, kept()), dropped

    def write(self, name: str, content: bytes) -> None:
        """A file of the partial dataset, whole or not at all."""
        beside = _unfinished(self.progress)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.partial / name)

    def write_quarantine(self, rejected: Iterable[Rejected]) -> Path:
        lines = [json.dumps(dataclasses.asdict(each)) + "\n" for each in rejected]
        self.write("quarantine.jsonl", "".join(lines).encode())
        return self.partial / "quarantine.jsonl"

    def publish(self, out: Path) -> None:
        """Give the complete dataset its name. `dataset.json` must have been written last."""
        if self.progress.exists():
            shutil.rmtree(self.progress)
        os.replace(self.partial, out)

    def _report(self, shard: int) -> Path:
        return self.progress / f"{shard:05d}.json"

    def _places(self, shard: int) -> tuple[Path, Path]:
        return self.progress / self.shard_name(shard), self.partial / self.shard_name(shard)


def partial_of(out: Path) -> Path:
    """Where the new dataset `out` is made. Raises UserError if it is there."""
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


def read_quarantine(path: Path) -> list[Rejected]:
    return [Rejected(**json.loads(line)) for line in path.read_text().splitlines()]


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
    """Write a shard at `path`, whole or not at all, by way of `folder`. Its sha256 and bytes."""
    beside = _unfinished(folder)
    # One record a group: they are read in random order.
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
    """A name that no other process, here or elsewhere, writes to."""
    return folder / f"unfinished-{uuid.uuid4().hex}"
