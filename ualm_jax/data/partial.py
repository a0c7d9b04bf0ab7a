"""A dataset in the making: `OUT.partial`, which a kill at any moment leaves fit to be continued."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record that was left out. id: None where not even that could be read. gate: which left it out (gates.py),
    "" for a record that can not be used."""

    id: str | None
    index: int
    gate: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What the finished dataset needs to know of a shard.

    samples: behind the codes; heard: 16 kHz samples of all clips. flagged: records that each gate of a sound found.
    Of each record stored: rows, the samples of its clips, and its hashes of caption and audio (gates.py).
    """

    shard: int
    name: str
    sha256: str
    bytes: int
    samples: int
    heard: int
    text_tokens: int
    flagged: dict[str, int]
    rows: list[int]
    clips: list[list[int]]
    hashes: list[list[int | None]]
    rejected: list[Rejected]

    @property
    def records(self) -> int:
        return len(self.rows)

    @property
    def bad(self) -> list[Rejected]:
        """Those that can not be used."""
        return [rejected for rejected in self.rejected if not rejected.gate]


class PartialDataset:
    """Shards of fixed ranges of the source, each written once.

    `partial/progress` holds what the finished dataset does not need: a report of each finished shard, what the
    dataset is `made_from`, and files that are being written. Raises UserError if `partial` was begun with
    something else.
    """

    def __init__(self, partial: Path, made_from: dict[str, Any], num_records: int):
        made_from = json.loads(json.dumps(made_from))  # as it will be read back
        self.partial, self.progress = partial, partial / "progress"
        self.made_from, self.num_records = made_from, num_records
        self.num_shards = -(-num_records // made_from["shard_size"])
        plan, finished = self.progress / "made_from.json", partial / "dataset.json"
        self.complete = finished.is_file()
        if self.complete:
            before = json.loads(finished.read_text())["made_from"]
        elif plan.is_file():
            before = json.loads(plan.read_text())
        elif partial.exists() and any(path != self.progress for path in partial.iterdir()):
            raise UserError(f"{partial}: in the way, and not an unfinished dataset; remove it")
        else:
            self.progress.mkdir(parents=True, exist_ok=True)
            self.write("progress/made_from.json", json.dumps(made_from).encode())
            before = made_from
        changed = [key for key in made_from if before.get(key) != made_from[key]]
        if changed:
            raise UserError(
                f"{partial}: begun with another {', '.join(changed)}; finish it with what it was begun with, "
                "or remove it"
            )

    def inputs(self, shard: int) -> range:
        """Which records of the source belong to a shard."""
        size = self.made_from["shard_size"]
        return range(shard * size, min((shard + 1) * size, self.num_records))

    def report(self, shard: int) -> ShardReport | None:
        """None for a shard that is not finished."""
        path = self.progress / f"{shard:05d}.json"
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        return ShardReport(**content | {"rejected": [Rejected(**each) for each in content["rejected"]]})

    def reports(self) -> Iterator[ShardReport]:
        """Those of the finished shards, in order."""
        return (report for shard in range(self.num_shards) if (report := self.report(shard)) is not None)

    def write_shard(self, shard: int, records: Sequence[bytes]) -> tuple[str, str, int]:
        """Name, sha256 and bytes of the written shard. It counts as finished once `finish_shard` has been called."""
        import array_record.python.array_record_module as array_record

        name = f"train.array_record-{shard:05d}-of-{self.num_shards:05d}"
        beside = self.progress / name
        # One record a group: they are read in random order.
        writer = array_record.ArrayRecordWriter(str(beside), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = beside.stat().st_size
        os.replace(beside, self.partial / name)
        return name, digest, size

    def finish_shard(self, report: ShardReport) -> None:
        self.write(f"progress/{report.shard:05d}.json", json.dumps(dataclasses.asdict(report)).encode())

    def reopen_shard(self, shard: int) -> None:
        """It is not finished after all and will be written anew."""
        (self.progress / f"{shard:05d}.json").unlink()

    def write_quarantine(self) -> None:
        rejected = (each for report in self.reports() for each in report.rejected)
        lines = [json.dumps(dataclasses.asdict(each)) + "\n" for each in rejected]
        self.write("quarantine.jsonl", "".join(lines).encode())

    def write(self, name: str, content: bytes) -> None:
        """A file of the partial dataset, whole or not at all."""
        beside = self.progress / "unfinished"
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.partial / name)

    def publish(self, out: Path) -> None:
        """Give the complete dataset its name. `dataset.json` must have been written last."""
        if self.progress.exists():
            shutil.rmtree(self.progress)
        os.replace(self.partial, out)
