"""Captioned sounds as Hugging Face stores data sets with an audio column: Parquet files of the hub, Arrow files of
`datasets.save_to_disk`."""

import bisect
import functools
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ualm_jax.audio.io import BadAudio
from ualm_jax.data.raw.files import EncodedSound, FileSound, beside, inside, is_url, open_binary
from ualm_jax.data.raw.hf_files import find_files
from ualm_jax.data.raw.segment import may_name_segment, take_duration
from ualm_jax.data.raw.sound_source import BadRecord, CaptionedSound, LeftOut
from ualm_jax.errors import UserError

_GROUPS_HELD = 4  # row groups in memory; readers ask for neighbours


class HubSounds:
    """The rows of a data set in order. Implements SoundSource.

    path, split: see hf_files.find_files; of Parquet, path may be a URL.
    audio: the column with the sound, a struct of `bytes` (a sound file) and `path`, or a text with a path;
    caption: the column with the text. id: the column that names a row, None for "file:row". ignore: columns to
    pass over, whatever they seem to say. A column `duration` must agree with the sounds; another one that
    may say which part of a sound is meant makes bad records, since sounds are used whole. Memory holds the row groups
    last read. Raises UserError for a folder without such files, one of several splits where none is named, or a missing
    column.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        sample_rate: int,
        *,
        audio: str = "audio",
        caption: str = "text",
        id: str | None = None,
        split: str | None = None,
        ignore: Sequence[str] = (),
    ):
        path = os.fspath(path).rstrip("/")
        self.name, self.sample_rate = Path(path).stem, sample_rate
        self._audio, self._caption, self._id, self._ignore = audio, caption, id, tuple(ignore)
        self._files, passed_over = find_files(path, split)
        self._groups: list[tuple[int, int]] = []  # (file, row group)
        self._about: list[tuple[str, ...]] = []  # of each file, the columns that may say which part is meant
        ends, total, unused = [], 0, {}
        for number, file in enumerate(self._files):
            try:
                schema, rows = _describe(file)
            except (OSError, ValueError) as error:
                raise UserError(f"{file}: not a readable data file ({str(error).splitlines()[0]})") from error
            for column in self._columns():
                if schema.names.count(column) != 1:
                    has = "no" if column not in schema.names else "more than one"
                    raise UserError(f"{file}: has {has} column {column!r}; its columns are {', '.join(schema.names)}")
            others = [field for field in schema if field.name not in self._columns()]
            unused.update((field.name, file) for field in others if field.name != "duration" or "duration" in ignore)
            self._about.append(
                tuple(
                    field.name
                    for field in others
                    if field.name not in ignore and any(map(may_name_segment, _names(field)))
                )
            )
            for group, count in enumerate(rows):
                total += count
                ends.append(total)
                self._groups.append((number, group))
        self.left_out = passed_over + [
            LeftOut(f"{file} column {column!r}", "this column is not used") for column, file in unused.items()
        ]
        self._ends = np.array(ends, np.int64)
        self._open()

    def _open(self) -> None:
        self._read = functools.lru_cache(_GROUPS_HELD)(self._read_group)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_read", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> CaptionedSound:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        group = bisect.bisect_right(self._ends, index)
        first = int(self._ends[group - 1]) if group else 0
        number = self._groups[group][0]
        file, name = self._files[number], f"{self.name}:{index + 1}"
        try:
            with self._lock:
                table = self._read(group)
            row = {column: table.column(column)[index - first].as_py() for column in table.column_names}
        except (OSError, ValueError, _pyarrow(file).ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise BadRecord(f"{file} row {index + 1} of all: can not be read ({reason})", name) from error
        if self._id is not None:
            name = str(row[self._id])
        try:
            return self._captioned(row, number, name, f"{file} row {index + 1} of all (id {name})")
        except (BadRecord, BadAudio) as error:
            raise BadRecord(str(error), name) from error

    def fingerprint(self) -> dict[str, Any]:
        """By the sizes of the files and what their last bytes say of their content."""
        digest = hashlib.sha256()
        for file in self._files:
            with open_binary(file) as content:
                size = content.seek(0, os.SEEK_END)
                content.seek(-min(size, 1 << 16), os.SEEK_END)
                digest.update(f"{os.path.basename(file)} {size} ".encode() + content.read())
        return {
            "kind": "hub",
            "sha256": digest.hexdigest(),
            "columns": [self._audio, self._caption, self._id],
            "sample_rate": self.sample_rate,
            "ignore": list(self._ignore),
        }

    def _columns(self) -> Sequence[str]:
        return [name for name in (self._audio, self._caption, self._id) if name is not None]

    def _read_group(self, group: int) -> Any:
        number, within = self._groups[group]
        file, columns = self._files[number], [*self._columns(), *self._about[number]]
        if file.endswith(".arrow"):
            return _arrow_table(file).select(columns)
        with open_binary(file) as content:
            return _pyarrow(file).parquet.ParquetFile(content).read_row_group(within, columns)

    def _captioned(self, row: dict[str, Any], number: int, name: str, where: str) -> CaptionedSound:
        caption = row[self._caption]
        if not isinstance(caption, str) or not caption.strip():
            raise BadRecord(f"{where}: {self._caption!r} must be a text that is not empty, found {caption!r}")
        whole = take_duration({column: row[column] for column in self._about[number]}, where)
        try:
            wav = self._sound(row[self._audio], self._files[number], where, whole).read(self.sample_rate)
        except BadAudio as error:
            raise BadRecord(f"{where}: {error}") from error
        return CaptionedSound(name, caption.strip(), wav, self.sample_rate, scene=None)

    def _sound(self, value: Any, file: str, where: str, whole: float | None) -> EncodedSound | FileSound:
        if isinstance(value, dict) and value.get("bytes"):
            return EncodedSound("its sound", value["bytes"], whole)
        path = value.get("path") if isinstance(value, dict) else value
        if not isinstance(path, str) or not path:
            raise BadRecord(f"{where}: {self._audio!r} must hold bytes or a path, found {type(value).__name__}")
        return FileSound(inside(beside(file), path, where), whole=whole)


def _names(field: Any, before: str = "") -> Iterator[str]:
    """The names of a column and, where it holds structs, of their fields."""
    yield field.name
    for number in range(field.type.num_fields):
        yield from _names(field.type.field(number))


def _describe(file: str) -> tuple[Any, list[int]]:
    """Schema, and the rows of every part that is read at once."""
    if file.endswith(".arrow"):
        table = _arrow_table(file)
        return table.schema, [table.num_rows]
    with open_binary(file) as content:
        parquet = _pyarrow(file).parquet.ParquetFile(content)
        rows = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        return parquet.schema_arrow, rows


def _arrow_table(file: str) -> Any:
    """Memory-mapped: nothing is read until a row is."""
    if is_url(file):
        raise UserError(f"{file}: Arrow files are memory-mapped and must lie on a disk; Parquet may be a URL")
    pyarrow = _pyarrow(file)
    mapped = pyarrow.memory_map(file)
    is_file = mapped.read(6) == b"ARROW1"  # as Feather writes it; datasets writes streams
    mapped.seek(0)
    return (pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream)(mapped).read_all()


def _pyarrow(path: str | os.PathLike) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: such files are read by pyarrow, run `pip install '.[hf]'`") from error
    return pyarrow
