"""Recorded sounds listed in a JSON or JSONL manifest, one record each:

    {"audio": "dogs/rex.flac", "caption": "A dog barks twice.", "start": 1.5, "end": 4.0, "id": "rex-1"}

`audio` is absolute, or relative to the manifest's folder and inside of it. `start` and `end` are seconds (segment.py
knows other spellings, and `duration`); without them the whole file is meant. `id` is "<manifest stem>:<line>" if left
out. Other fields make a bad record.
"""

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from ualm_jax.audio.io import BadAudio
from ualm_jax.data.raw.files import FileSound, beside, inside
from ualm_jax.data.raw.json_records import JsonRecords
from ualm_jax.data.raw.schema import Caption, Text, parse, take
from ualm_jax.data.raw.segment import FIELDS, Segment
from ualm_jax.data.raw.sound_source import BadRecord, CaptionedSound

_FIELDS = ("audio", "caption", "start", "end", "id")


class _Entry(Segment):
    audio: Text
    caption: Caption
    id: Text = None


class Manifest:
    """The sounds of a manifest, mono at `sample_rate`. Implements SoundSource.

    `root` replaces the manifest's folder as the place that relative audio paths start from and stay in. ignore: fields
    that a record may have and that mean nothing. Raises UserError if the manifest is missing or empty; on access,
    BadRecord for what is wrong with one record.
    """

    left_out = ()

    def __init__(
        self,
        path: str | os.PathLike,
        sample_rate: int,
        root: str | os.PathLike | None = None,
        *,
        ignore: Sequence[str] = (),
    ):
        self.path = path
        self._records, self._ignore = JsonRecords(path), tuple(ignore)
        self.name = self._records.name
        self.sample_rate = sample_rate
        self.root = os.fspath(root) if root is not None else beside(path)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> CaptionedSound:
        record, where = self._records[index], self._records.where(index)
        name = record.get("id")
        if isinstance(name, str) and name.strip():
            where = f"{where} (id {name})"
        else:
            name = f"{self.name}:{self._records.number(index)}"
        try:
            unused = take(record, self._ignore)
            entry = parse(_Entry, record, where)
            for field in entry.extra:
                known = ", ".join((*_FIELDS, *(field for field in FIELDS if field not in _FIELDS)))
                raise BadRecord(f"{where}: unknown field {field!r}; expected {known}, or --ignore-fields {field}")
            where = f"{self._records.where(index)} (id {name})"
            start, end = entry.bounds(where)
            sound = FileSound(inside(self.root, entry.audio, where), start, end, entry.whole)
            wav = sound.read(self.sample_rate)
        except BadRecord as error:
            raise BadRecord(str(error), name) from error
        except BadAudio as error:
            raise BadRecord(f"{where}: {error}", name) from error
        return CaptionedSound(name, entry.caption, wav, self.sample_rate, scene=None, unused=unused)

    def digest(self, indices: range) -> dict[str, Any]:
        """The fingerprint of a range of records alone."""
        return self.fingerprint() | {"sha256": self._records.digest(indices), "count": len(indices)}

    def fingerprint(self) -> dict[str, Any]:
        """By content, not by folder: a data set may be moved. The audio files themselves are not hashed."""
        return {
            "kind": "manifest",
            "name": PurePath(str(self.path)).name,
            "sha256": self._records.sha256,
            "count": len(self),
            "sample_rate": self.sample_rate,
            "ignore": list(self._ignore),
        }
