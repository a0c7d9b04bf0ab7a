"""Random access to the records of a JSON file, whether one a line or in lists, without holding them."""

import array
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

from ualm_jax.data.raw.files import open_binary
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError

_BOM = b"\xef\xbb\xbf"  # what some editors put before UTF-8
_CHUNK = 1 << 20  # bytes read at once
_BETWEEN = re.compile(rb"(?:[\s,]|" + _BOM + rb")+")
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_PART = re.compile(_TEXT.pattern + rb'|["{}\[\]]', re.DOTALL)  # a whole text, or one character
_OTHER = re.compile(rb"[^\s,\[\]{}]+|.", re.DOTALL)  # a number, or what is no JSON


class JsonRecords:
    """The records of a JSON file: each line (blank ones are passed over), or, where the file begins with a list, each
    entry of that list and of all that follow it, and each object that stands outside of them.

    Memory holds where each begins and ends and which line or entry it is (24 bytes a record); they are parsed when
    asked for. Nothing is passed over but blanks and commas.
    Raises UserError if the file is missing, empty, not text or not closed; on access, BadRecord for what is no JSON
    object or has a field twice, naming line or entry.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = str(path)
        self.name = PurePath(self.path).stem
        try:
            with open_binary(path) as file:
                head = file.read(_CHUNK).removeprefix(_BOM).lstrip()
                _check_is_text(head, self.path)
                listed = head[:1] == b"["
                file.seek(0)
                starts, ends, numbers = (_index_lists if listed else _index_lines)(file, self.path)
                file.seek(0)
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except IsADirectoryError as error:
            raise UserError(f"{path}: is a folder; name the JSON or JSONL file in it") from error
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such manifest; expected a JSON or JSONL file") from error
        except OSError as error:
            raise UserError(f"{path}: can not be read ({error.strerror or error})") from error
        if not starts:
            raise UserError(f"{path}: the manifest is empty; expected JSON records, one a line or in a list")
        self._unit = "entry" if listed else "line"
        self._starts, self._ends, self._numbers = (np.array(values, np.int64) for values in (starts, ends, numbers))

    def __len__(self) -> int:
        return len(self._starts)

    def number(self, index: int) -> int:
        """Line of the file, or place among the entries of its lists, counted from 1."""
        return int(self._numbers[index])

    def where(self, index: int) -> str:
        return f"{self.path} {self._unit} {self.number(index)}"

    def digest(self, indices: range) -> str:
        """The hash of what stands in the file for a range of records, and of their numbers."""
        digest = hashlib.sha256()
        with open_binary(self.path) as file:
            for index in indices:
                file.seek(int(self._starts[index]))
                content = file.read(int(self._ends[index] - self._starts[index])).strip()
                digest.update(f"{self.number(index)} {len(content)} ".encode() + content)
        return digest.hexdigest()

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        with open_binary(self.path) as file:
            file.seek(int(self._starts[index]))
            content = file.read(int(self._ends[index] - self._starts[index]))
        try:
            record = parse_json(content)
        except (ValueError, RecursionError) as error:  # ValueError is also what is not UTF-8
            raise BadRecord(f"{self.where(index)}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise BadRecord(f"{self.where(index)}: expected a JSON object, found {type(record).__name__}")
        return record


def parse_json(content: bytes) -> Any:
    """Raises ValueError (or RecursionError) for what is no JSON, no UTF-8, or an object with two fields of one name."""
    return json.loads(content, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has the field {next(name for name in names if names.count(name) > 1)!r} twice")
    return result


def _check_is_text(head: bytes, path: str) -> None:
    for mark, kind in ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\x1f\x8b", "compressed"), (b"PK", "a ZIP")):
        if head.startswith(mark):
            raise UserError(f"{path}: is {kind}; expected JSON as plain UTF-8 text")


def _index_lines(file: io.IOBase, path: str) -> tuple[array.array, array.array, array.array]:
    starts, ends, numbers, position = array.array("q"), array.array("q"), array.array("q"), 0
    for number, line in enumerate(file, start=1):
        if line.removeprefix(_BOM).strip():
            starts.append(position)
            ends.append(position + len(line))
            numbers.append(number)
        position += len(line)
    return starts, ends, numbers


def _index_lists(file: io.IOBase, path: str) -> tuple[array.array, array.array, array.array]:
    starts, ends = array.array("q"), array.array("q")
    for start, end in _Entries(file, path):
        starts.append(start)
        ends.append(end)
    return starts, ends, array.array("q", range(1, len(starts) + 1))


class _Entries:
    """First byte and end of each entry of the lists in a file, and of what stands outside of lists.

    Streaming parsers such as ijson do not tell where a value stands in the file, which random access needs, and stop at
    the first entry that is no JSON; this goes on with the next.
    """

    def __init__(self, file: io.IOBase, path: str):
        self._file, self._path = file, path
        self._held, self._offset, self._place = b"", 0, 0  # bytes in memory, where they begin, and where we stand

    def __iter__(self) -> Iterator[tuple[int, int]]:
        in_list = False
        while (first := self._next()) is not None:
            start = self._offset + self._place
            if first == b"[" and not in_list or first == b"]" and in_list:
                in_list = not in_list
                self._place += 1
                continue
            if first in (b"[", b"{"):
                self._skip_nested()
            else:
                self._skip(_TEXT if first == b'"' else _OTHER)
            yield start, self._offset + self._place
        if in_list:
            raise self._not_closed()

    def _next(self) -> bytes | None:
        """The next byte of an entry or bracket; None at the end of the file."""
        while True:
            if (between := _BETWEEN.match(self._held, self._place)) is not None:
                self._place = between.end()
            if len(self._held) - self._place >= len(_BOM):
                return self._held[self._place : self._place + 1]
            if not self._read():
                return self._held[self._place : self._place + 1] or None

    def _skip_nested(self) -> None:
        """To behind the list or object that begins here. Texts are taken whole: brackets in them do not count."""
        depth = 0
        while True:
            found = _PART.search(self._held, self._place)
            token = found.group() if found is not None else b'"'
            if token == b'"':  # nothing more, or a text that does not end
                self._place = found.start() if found is not None else len(self._held)
                if not self._read():
                    raise self._not_closed()
                continue
            self._place = found.end()
            if token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
                if depth == 0:
                    return

    def _skip(self, pattern: re.Pattern) -> None:
        """To behind what matches here, or to the end of the file."""
        while True:
            found = pattern.match(self._held, self._place)
            if found is not None and (found.end() < len(self._held) or pattern is _TEXT):
                self._place = found.end()
                return
            if not self._read():
                self._place = len(self._held)
                return

    def _read(self) -> bool:
        """More bytes, and as many as are held already: a long text is looked through a few times only."""
        self._held, self._offset, self._place = self._held[self._place :], self._offset + self._place, 0
        more = self._file.read(max(_CHUNK, len(self._held)))
        self._held += more
        return bool(more)

    def _not_closed(self) -> UserError:
        return UserError(f"{self._path}: a JSON list is not closed; the file is truncated or damaged")
