"""Captioned sounds as Hugging Face stores data sets with an audio column: Parquet files of the hub, Arrow files of
`datasets.save_to_disk`."""

import bisect
import functools
import glob
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ualm_jax.audio.io import BadAudio
from ualm_jax.data.raw.files import EncodedSound, FileSound, beside, inside, is_url, matching, open_binary
from ualm_jax.data.raw.sound_source import BadRecord, CaptionedSound, LeftOut
from ualm_jax.errors import UserError

_GROUPS_HELD = 4  # row groups in memory; readers ask for neighbours


class HubSounds:
    """The rows of a Parquet or Arrow file, or of all below a folder in order of their names. Implements SoundSource.

    path: of the file or folder; of Parquet it may be a URL.
    audio: the column with the sound, a struct of `bytes` (a sound file) and `path`, or a text with a path;
    caption: the column with the text. id: the column that names a row, None for "file:row".
    Memory holds the row groups last read. Raises UserError for a folder without such files or a missing column.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        sample_rate: int,
        *,
        audio: str = "audio",
        caption: str = "text",
        id: str | None = None,
    ):
        path = os.fspath(path).rstrip("/")
        self.name, self.sample_rate = Path(path).stem, sample_rate
        self._audio, self._caption, self._id = audio, caption, id
        self.left_out: list[LeftOut] = []
        if os.path.isfile(path) or (is_url(path) and path.endswith(".parquet")):
            self._files = [path]
        else:
            below = f"{glob.escape(path)}/**"
            self._files = matching(f"{below}/*.parquet") or matching(f"{below}/*.arrow")
        if not self._files:
            raise UserError(
                f"{path}: holds no data set; expected a file, or a folder with *.parquet or *.arrow below it"
            )
        self._groups: list[tuple[int, int]] = []  # (file, row group)
        ends, total = [], 0
        for number, file in enumerate(self._files):
            try:
                names, rows = _describe(file)
            except (OSError, ValueError) as error:
                raise UserError(f"{file}: not a readable data file ({str(error).splitlines()[0]})") from error
            for column in self._columns():
                if column not in names:
                    raise UserError(f"{file}: has no column {column!r}; its columns are {', '.join(names)}")
            for group, count in enumerate(rows):
                total += count
                ends.append(total)
                self._groups.append((number, group))
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
        with self._lock:
            table = self._read(group)
        row = {name: table.column(name)[index - first].as_py() for name in self._columns()}
        file = self._files[self._groups[group][0]]
        name = str(row[self._id]) if self._id is not None else f"{self.name}:{index + 1}"
        where = f"{file} row {index + 1} of all (id {name})"
        caption = row[self._caption]
        if not isinstance(caption, str) or not caption.strip():
            raise BadRecord(f"{where}: {self._caption!r} must be a text that is not empty, found {caption!r}")
        try:
            wav = self._sound(row[self._audio], file, where).read(self.sample_rate)
        except BadAudio as error:
            raise BadRecord(f"{where}: {error}") from error
        return CaptionedSound(name, caption.strip(), wav, self.sample_rate, scene=None)

    def fingerprint(self) -> dict[str, Any]:
        """By the sizes of the files and what their last bytes say of their content."""
        digest = hashlib.sha256()
        for file in self._files:
            with open_binary(file) as content:
                size = content.seek(0, os.SEEK_END)
                content.seek(-min(size, 1 << 16), os.SEEK_END)
                digest.update(f"{os.path.basename(file)} {size} ".encode() + content.read())
        columns = [self._audio, self._caption, self._id]
        return {"kind": "hub", "sha256": digest.hexdigest(), "columns": columns, "sample_rate": self.sample_rate}

    def _columns(self) -> Sequence[str]:
        return [name for name in (self._audio, self._caption, self._id) if name is not None]

    def _read_group(self, group: int) -> Any:
        number, within = self._groups[group]
        file = self._files[number]
        if file.endswith(".arrow"):
            return _arrow_table(file)
        with open_binary(file) as content:
            return _pyarrow(file).parquet.ParquetFile(content).read_row_group(within, self._columns())

    def _sound(self, value: Any, file: str, where: str) -> EncodedSound | FileSound:
        if isinstance(value, dict) and value.get("bytes"):
            return EncodedSound(where, value["bytes"])
        path = value.get("path") if isinstance(value, dict) else value
        if not isinstance(path, str) or not path:
            raise BadRecord(f"{where}: {self._audio!r} must hold bytes or a path, found {type(value).__name__}")
        return FileSound(inside(beside(file), path, where))


def _describe(file: str) -> tuple[list[str], list[int]]:
    """Columns, and the rows of every part that is read at once."""
    if file.endswith(".arrow"):
        table = _arrow_table(file)
        return table.column_names, [table.num_rows]
    with open_binary(file) as content:
        parquet = _pyarrow(file).parquet.ParquetFile(content)
        rows = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        return parquet.schema_arrow.names, rows


def _arrow_table(file: str) -> Any:
    """Memory-mapped: nothing is read until a row is."""
    if is_url(file):
        raise UserError(f"{file}: Arrow files are memory-mapped and must lie on a disk; Parquet may be a URL")
    pyarrow = _pyarrow(file)
    return pyarrow.ipc.open_stream(pyarrow.memory_map(file)).read_all()


def _pyarrow(path: str | os.PathLike) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: such files are read by pyarrow, run `pip install '.[hf]'`") from error
    return pyarrow
