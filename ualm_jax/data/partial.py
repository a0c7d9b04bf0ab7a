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
class BadSound:
    """A sound that can not be used; `id` is None where not even that could be read."""

    id: str | None
    index: int
    reason: str


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What `dataset.json` and `quarantine.jsonl` need to know of a finished shard."""

    shard: int
    name: str
    records: int
    sha256: str
    samples: int
    text_tokens: int
    rows: int
    longest: int
    bad: tuple[BadSound, ...]


class PartialDataset:
    """Shards of fixed ranges of the source, each written once.

    `partial/progress` holds what the finished dataset does not need: a report of each finished shard, what the
    dataset is `made_from`, and files that are being written. Raises UserError if `partial` was begun with
    something else.
    """

    def __init__(self, partial: Path, made_from: dict[str, Any], num_sounds: int):
        made_from = json.loads(json.dumps(made_from))  # as it will be read back
        self.partial, self.progress = partial, partial / "progress"
        self.made_from, self.num_sounds = made_from, num_sounds
        self.num_shards = -(-num_sounds // made_from["shard_size"])
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

    def sounds(self, shard: int) -> range:
        """Which sounds of the source belong to a shard."""
        size = self.made_from["shard_size"]
        return range(shard * size, min((shard + 1) * size, self.num_sounds))

    def report(self, shard: int) -> ShardReport | None:
        """None for a shard that is not finished."""
        path = self.progress / f"{shard:05d}.json"
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        return ShardReport(**content | {"bad": tuple(BadSound(**bad) for bad in content["bad"])})

    def reports(self) -> Iterator[ShardReport]:
        """Those of the finished shards, in order."""
        return (report for shard in range(self.num_shards) if (report := self.report(shard)) is not None)

    def write_shard(self, shard: int, records: Sequence[bytes]) -> tuple[str, str]:
        """The name and sha256 of the written shard. It counts as finished once `finish_shard` has been called."""
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
        os.replace(beside, self.partial / name)
        return name, digest

    def finish_shard(self, report: ShardReport) -> None:
        self.write(f"progress/{report.shard:05d}.json", json.dumps(dataclasses.asdict(report)).encode())

    def reopen_shard(self, shard: int) -> None:
        """It is not finished after all and will be written anew."""
        (self.progress / f"{shard:05d}.json").unlink()

    def write_quarantine(self) -> None:
        lines = [json.dumps(dataclasses.asdict(bad)) + "\n" for report in self.reports() for bad in report.bad]
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
