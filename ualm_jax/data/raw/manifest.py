"""Recorded sounds listed in a JSONL manifest.

One record a line:
    {"audio": "dogs/rex.flac", "caption": "A dog barks twice.", "start": 1.5, "end": 4.0, "id": "rex-1"}
`audio` is absolute, or relative to the manifest's folder and inside of it. `start` and `end` are seconds;
without them the whole file is meant. `id` is "<manifest stem>:<line>" if left out. Blank lines are passed over.
"""

import math
import os
from pathlib import PurePath
from typing import Any

from ualm_jax.audio.io import BadAudio
from ualm_jax.data.raw.files import FileSound, beside, inside
from ualm_jax.data.raw.json_records import JsonRecords
from ualm_jax.data.raw.sound_source import BadRecord, CaptionedSound

_FIELDS = ("audio", "caption", "start", "end", "id")


class Manifest:
    """The sounds of a manifest, mono at `sample_rate`. Implements SoundSource.

    `root` replaces the manifest's folder as the place that relative audio paths start from and stay in.
    Raises UserError if the manifest is missing or empty; on access, BadRecord for what is wrong with one line.
    """

    left_out = ()

    def __init__(self, path: str | os.PathLike, sample_rate: int, root: str | os.PathLike | None = None):
        self.path = path
        self._records = JsonRecords(path)
        self.name = self._records.name
        self.sample_rate = sample_rate
        self.root = os.fspath(root) if root is not None else beside(path)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> CaptionedSound:
        record = _check(self._records[index], self._records.where(index))
        name = record.get("id", f"{self.name}:{self._records.number(index)}")
        where = f"{self._records.where(index)} (id {name})"
        sound = FileSound(inside(self.root, record["audio"], where), record.get("start", 0.0), record.get("end"))
        try:
            wav = sound.read(self.sample_rate)
        except BadAudio as error:
            raise BadRecord(f"{where}: {error}") from error
        return CaptionedSound(name, record["caption"].strip(), wav, self.sample_rate, scene=None)

    def fingerprint(self) -> dict[str, Any]:
        """By content, not by folder: a data set may be moved. The audio files themselves are not hashed."""
        return {
            "kind": "manifest",
            "name": PurePath(str(self.path)).name,
            "sha256": self._records.sha256,
            "count": len(self),
            "sample_rate": self.sample_rate,
        }


def _check(record: dict[str, Any], where: str) -> dict[str, Any]:
    """The record, or BadRecord: every field is there that must be, and is what it should be."""
    named = record.get("id")
    if isinstance(named, str) and named:
        where = f"{where} (id {named})"
    for field in record:
        if field not in _FIELDS:
            raise BadRecord(f"{where}: unknown field {field!r}; expected {', '.join(_FIELDS)}")
    for field in ("audio", "caption"):
        if field not in record:
            raise BadRecord(f"{where}: the field {field!r} is missing")
    for field in ("audio", "caption", "id"):
        value = record.get(field, "-")
        if not isinstance(value, str) or not value.strip():
            raise BadRecord(f"{where}: {field!r} must be a text that is not empty, found {value!r}")
    for field in ("start", "end"):
        value = record.get(field, 0.0)
        if type(value) not in (int, float) or not 0 <= value < 1e9:
            raise BadRecord(f"{where}: {field!r} must be a number of seconds from 0 on, found {value!r}")
        if field in record:
            record[field] = float(value)
    start, end = record.get("start", 0.0), record.get("end", math.inf)
    if start >= end:
        raise BadRecord(f"{where}: 'start' must be before 'end', found {start:g} and {end:g}")
    return record
