"""A dataset that is being made: `OUT.partial`. After a kill at any moment it can be continued."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ualm_jax.data.prepare.reports import COLUMNS, Filtered, Rejected, ShardReport, Stored
from ualm_jax.data.prepare.shard_files import read_records, write_file, write_records
from ualm_jax.data.raw.sound_source import LeftOut
from ualm_jax.errors import UserError
from ualm_jax.outputs import check_new_folder, lock

_VERSION = 2  # of what lies in `progress`
_PER_SHARD = ("source", "filters", "sounds")  # may change: every shard knows whether it still fits


class PartialDataset:
    """Shards that are written one by one, each a function of a fixed part of the input, by any process.

    `partial/progress` holds what the finished dataset does not need: what it is made from, shards and their reports
    until duplicates are left out, and files that are being written. Two processes may write the same shard: they
    write the same bytes, and a file appears whole. Raises UserError if something else is in the way.

    whole: the folder that a person would remove to start anew, where this one is a part of it.
    """

    def __init__(self, partial: Path, whole: Path | None = None):
        self.partial = partial.absolute()
        self._whole = whole or self.partial
        self.progress = self.partial / "progress"
        self._plan = self.progress / "made_from.json"
        unknown = self.partial.exists() and any(path != self.progress for path in self.partial.iterdir())
        if unknown and not self.complete and not self._plan.is_file():
            raise UserError(f"{partial}: in the way, and not an unfinished dataset; remove it")

    @property
    def complete(self) -> bool:
        """Whether only the final name is missing."""
        return (self.partial / "dataset.json").is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other jobs out. If nothing is begun in the meantime, nothing stays behind."""
        made = [folder for folder in (self.progress, self.partial) if not folder.exists()]
        self.progress.mkdir(parents=True, exist_ok=True)
        try:
            with lock(self.progress):
                yield
        finally:
            if made and not self._plan.exists() and not self.complete and self.progress.exists():
                for folder in made:
                    (folder / "lock").unlink(missing_ok=True)
                    with contextlib.suppress(OSError):  # something has been put there
                        folder.rmdir()

    def begin(self, made_from: dict[str, Any], num_shards: int, made_of: Callable[[int], str] | None = None) -> None:
        """Say what it is made from. What was begun before is continued as far as it does not depend on what changed.

        made_of: what a shard's `ShardReport.made_of` is now. Raises UserError if all that is finished depends on what
        changed; then nothing is touched.
        """
        self.made_from, self.num_shards = json.loads(json.dumps(made_from)), num_shards  # as it will be read back
        before = self._begun_with()
        if before == self.made_from:
            return
        if before is not None:
            changed = [key for key in self.made_from if before.get(key) != self.made_from[key]]
            if not self._plan.is_file() or any(key not in _PER_SHARD for key in changed):
                raise self._begun_with_another(changed)
            finished = [report.made_of == made_of(report.shard) for report in self.reports()]
            if finished and not any(finished):
                raise self._begun_with_another(changed)
            self._reopen()
        self.progress.mkdir(parents=True, exist_ok=True)
        content = {"version": _VERSION, "made_from": self.made_from}
        self.write("progress/made_from.json", json.dumps(content).encode())

    def is_finished(self, made_from: dict[str, Any]) -> bool:
        """Whether it is complete, and made from this.

        Raises UserError if it is made from something else and what would be needed to continue is gone.
        """
        if not self.complete:
            return False
        before, made_from = self._begun_with(), json.loads(json.dumps(made_from))
        changed = [key for key in made_from if before.get(key) != made_from[key]]
        if changed and not self._plan.is_file():
            raise self._begun_with_another(changed)
        return not changed

    def shard_name(self, shard: int) -> str:
        return f"train.array_record-{shard:05d}-of-{self.num_shards:05d}"

    def report(self, shard: int) -> ShardReport | None:
        """None for a shard that is not written yet."""
        path = self._report(shard)
        return ShardReport.from_json(json.loads(path.read_text())) if path.is_file() else None

    def reports(self) -> Iterator[ShardReport]:
        """The reports of the written shards, in order."""
        return (report for shard in range(self.num_shards) if (report := self.report(shard)) is not None)

    def has_report(self, shard: int) -> bool:
        return self._report(shard).is_file()

    def take_back(self, shard: int) -> None:
        """Forget that a shard was written."""
        self._report(shard).unlink(missing_ok=True)

    def write_shard(self, shard: int, made_of: str, outcomes: Iterable[Stored | Filtered | Rejected]) -> ShardReport:
        """Write a shard and then its report. outcomes: what became of each record."""
        self.take_back(shard)
        unused, left_out = Counter(), {Rejected: [], Filtered: []}
        columns = {name: [] for name in COLUMNS}

        def records() -> Iterator[bytes]:
            for outcome in outcomes:
                if not isinstance(outcome, Stored):
                    left_out[type(outcome)].append(outcome)
                    continue
                unused.update(set(outcome.unused))
                for name, values in columns.items():
                    values.append(getattr(outcome, name))
                yield outcome.data

        sha256, size = write_records(self.progress, self._paths(shard)[0], records())
        lists = left_out[Rejected], left_out[Filtered], columns, dict(sorted(unused.items()))
        report = ShardReport(shard, made_of, sha256, size, *lists)
        content = dataclasses.asdict(dataclasses.replace(report, columns={}))
        content["columns"] = columns | {"measures": [_as_dict(each) for each in columns["measures"]]}
        self.write(f"progress/{shard:05d}.json", json.dumps(content).encode())
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

        return *write_records(self.progress, final, kept()), dropped

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the partial dataset. It appears whole or not at all."""
        write_file(self.progress, self.partial / name, content)

    def write_quarantine(self, rejected: Iterable[Rejected], unused: Iterable[LeftOut] = ()) -> Path:
        """One line of JSON each: records with their index, then what else was not used, with how many there are."""
        lines = [json.dumps(dataclasses.asdict(each)) + "\n" for each in (*rejected, *unused)]
        self.write("quarantine.jsonl", "".join(lines).encode())
        return self.partial / "quarantine.jsonl"

    def publish(self, out: Path) -> None:
        """Give the complete dataset its name. `dataset.json` must be the last file that was written."""
        if self.progress.exists():
            shutil.rmtree(self.progress)
        os.replace(self.partial, out)

    def _begun_with(self) -> dict[str, Any] | None:
        """What it was made from before; None if it was not begun."""
        if self.complete:
            return json.loads((self.partial / "dataset.json").read_text())["made_from"]
        if not self._plan.is_file():
            return None
        content = json.loads(self._plan.read_text())
        if content.get("version") != _VERSION:
            raise UserError(f"{self._whole}: begun by another version; finish it with that one, or remove it")
        return content["made_from"]

    def _begun_with_another(self, changed: list[str]) -> UserError:
        names = ", ".join(changed)
        return UserError(f"{self._whole}: begun with another {names}; finish it with what began it, or remove it")

    def _reopen(self) -> None:
        """Take shards that have become part of the dataset back, as they were written."""
        (self.partial / "dataset.json").unlink(missing_ok=True)
        for final in self.partial.glob("train.array_record-*"):
            made, _ = self._paths(int(re.match(r"train\.array_record-(\d+)", final.name)[1]))
            if made.exists():
                final.unlink()
            else:
                os.replace(final, made)

    def _report(self, shard: int) -> Path:
        return self.progress / f"{shard:05d}.json"

    def _paths(self, shard: int) -> tuple[Path, Path]:
        """Where a shard lies when it is written, and when it is part of the dataset."""
        return self.progress / f"{shard:05d}.array_record", self.partial / self.shard_name(shard)


def partial_of(out: Path) -> Path:
    """Where the new dataset `out` is made. Raises UserError where `out` can not be made or holds something."""
    out = check_new_folder(out)
    return out.with_name(out.name + ".partial")


def _as_dict(value: Any) -> dict[str, Any] | None:
    return None if value is None else dataclasses.asdict(value)


def read_quarantine(path: Path) -> tuple[list[Rejected], list[LeftOut]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    records = [Rejected(**_with_filter(entry)) for entry in entries if "index" in entry]
    return records, [LeftOut(**entry) for entry in entries if "index" not in entry]


def _with_filter(entry: dict[str, Any]) -> dict[str, Any]:
    """Filters were called gates in format 2."""
    return {("filter" if name == "gate" else name): value for name, value in entry.items()}
