"""Random access to the records of a JSON file, whether one a line or in one list, without holding them."""

import array
import hashlib
import json
import os
import re
from pathlib import PurePath
from typing import Any

import numpy as np

from ualm_jax.data.raw.files import open_binary
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)


class JsonRecords:
    """The objects of a JSONL file (blank lines are passed over), or of a file that holds one JSON list of them.

    Memory holds where each begins and ends and which line it is (24 bytes a record); they are parsed when asked for.
    Raises UserError if the file is missing, empty or not closed; on access, BadRecord naming the line or entry.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = str(path)
        self.name = PurePath(self.path).stem
        try:
            with open_binary(path) as file:
                listed = file.read(64).lstrip()[:1] == b"["
                file.seek(0)
                starts, ends, numbers = (_index_list if listed else _index_lines)(file, self.path)
                file.seek(0)
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path}: there is no such manifest; expected a JSON or JSONL file") from error
        if not starts:
            raise UserError(f"{path}: the manifest is empty; expected JSON records, one a line or in a list")
        self._unit = "entry" if listed else "line"
        self._starts, self._ends, self._numbers = (np.array(values, np.int64) for values in (starts, ends, numbers))

    def __len__(self) -> int:
        return len(self._starts)

    def number(self, index: int) -> int:
        """Line of the file, or place in the list, counted from 1."""
        return int(self._numbers[index])

    def where(self, index: int) -> str:
        return f"{self.path} {self._unit} {self.number(index)}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        with open_binary(self.path) as file:
            file.seek(int(self._starts[index]))
            content = file.read(int(self._ends[index] - self._starts[index]))
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:  # ValueError is also what is not UTF-8
            raise BadRecord(f"{self.where(index)}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise BadRecord(f"{self.where(index)}: expected a JSON object, found {type(record).__name__}")
        return record


def _index_lines(file, path: str) -> tuple[array.array, array.array, array.array]:
    starts, ends, numbers, position = array.array("q"), array.array("q"), array.array("q"), 0
    for number, line in enumerate(file, start=1):
        if line.strip():
            starts.append(position)
            ends.append(position + len(line))
            numbers.append(number)
        position += len(line)
    return starts, ends, numbers


def _index_list(file, path: str) -> tuple[array.array, array.array, array.array]:
    """Strings are skipped whole, so that brackets in them do not count."""
    starts, ends, depth = array.array("q"), array.array("q"), 0
    for found in _STRING_OR_BRACKET.finditer(file.read()):
        token = found.group()
        if token in (b"{", b"["):
            if depth == 1:
                starts.append(found.start())
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 1:
                ends.append(found.end())
            elif depth <= 0:
                break
        elif depth == 1:
            raise UserError(f"{path} entry {len(starts) + 1}: expected a JSON object, found a text")
    if depth != 0 or len(starts) != len(ends):
        raise UserError(f"{path}: the JSON list is not closed; the file is truncated or damaged")
    return starts, ends, array.array("q", range(1, len(starts) + 1))
