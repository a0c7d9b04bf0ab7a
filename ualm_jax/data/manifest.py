"""Recorded sounds listed in a JSONL manifest.

One record a line:
    {"audio": "dogs/rex.flac", "caption": "A dog barks twice.", "start": 1.5, "end": 4.0, "id": "rex-1"}
`audio` is absolute, or relative to the manifest's folder and inside of it. `start` and `end` are seconds;
without them the whole file is meant. `id` is "<manifest stem>:<line>" if left out. Blank lines are passed over.
"""

import array
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ualm_jax.audio.io import BadAudio, read_audio
from ualm_jax.data.sound_source import BadRecord, CaptionedSound
from ualm_jax.errors import UserError

_FIELDS = ("audio", "caption", "start", "end", "id")


class Manifest:
    """The sounds of a manifest, mono at `sample_rate`. Implements SoundSource.

    Memory holds where each line begins (16 bytes a record), nothing else; lines are parsed when asked for.
    `root` replaces the manifest's folder as the place that relative audio paths start from and stay in.
    Raises UserError if the manifest is missing or empty; on access, BadRecord for what is wrong with one line.
    """

    def __init__(self, path: str | os.PathLike, sample_rate: int, root: str | os.PathLike | None = None):
        self.path = Path(path)
        self.name = self.path.stem
        self.sample_rate = sample_rate
        self.root = Path(root) if root is not None else self.path.parent
        if not self.path.is_file():
            raise UserError(f"{self.path}: there is no such manifest; expected a JSONL file")
        offsets, lines, digest, position = array.array("q"), array.array("q"), hashlib.sha256(), 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    offsets.append(position)
                    lines.append(number)
                position += len(line)
                digest.update(line)
        if not offsets:
            raise UserError(f"{self.path}: the manifest is empty; expected one JSON record a line")
        self._offsets = np.array(offsets, np.int64)
        self._lines = np.array(lines, np.int64)
        self._sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> CaptionedSound:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        with open(self.path, "rb") as file:
            file.seek(self._offsets[index])
            line = file.readline()
        number = int(self._lines[index])
        where = f"{self.path} line {number}"
        record = _parse(line, where)
        name = record.get("id", f"{self.name}:{number}")
        where = f"{where} (id {name})"
        try:
            wav = read_audio(
                self._audio_path(record["audio"], where),
                sample_rate=self.sample_rate,
                start=record.get("start", 0.0),
                end=record.get("end"),
            )
        except BadAudio as error:
            raise BadRecord(f"{where}: {error}") from error
        return CaptionedSound(name, record["caption"].strip(), wav, self.sample_rate, scene=None)

    def fingerprint(self) -> dict[str, Any]:
        """By content, not by folder: a data set may be moved. The audio files themselves are not hashed."""
        return {
            "kind": "manifest",
            "name": self.path.name,
            "sha256": self._sha256,
            "count": len(self),
            "sample_rate": self.sample_rate,
        }

    def _audio_path(self, audio: str, where: str) -> str:
        if os.path.isabs(audio):
            return audio
        inside = os.path.normpath(audio)
        if inside.split(os.sep)[0] == "..":
            raise BadRecord(f"{where}: audio {audio!r} leads out of {self.root}; write an absolute path instead")
        return os.path.join(self.root, inside)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    """The record of one line, or BadRecord: every field is there that must be, and is what it should be."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError is also what is not UTF-8
        raise BadRecord(f"{where}: not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise BadRecord(f"{where}: expected a JSON object, found {type(record).__name__}")
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
