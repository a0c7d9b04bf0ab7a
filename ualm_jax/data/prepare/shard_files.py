"""Files of records, written whole or not at all, and read in order."""

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from ualm_jax.errors import UserError

_READ_TOGETHER = 64  # records


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a shard in order. Raises UserError where it is damaged."""
    try:
        reader = ArrayRecordReader(os.fspath(path))
        total = reader.num_records()
        for start in range(0, total, _READ_TOGETHER):
            yield from reader.read(start, min(start + _READ_TOGETHER, total))
        reader.close()
    except RuntimeError as error:
        raise UserError(f"{path}: damaged ({str(error) or 'truncated'}); copy or prepare the dataset again") from error


def write_records(folder: Path, path: Path, records: Iterable[bytes]) -> tuple[str, int]:
    """Write a shard at `path` through a file in `folder`. Returns its sha256 and bytes.

    Raises OSError where it can not be written.
    """
    beside = unfinished(folder)
    try:
        # Groups of one record, because records are read in random order.
        writer = ArrayRecordWriter(os.fspath(beside), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
    except RuntimeError as error:  # the library's words for a full disk and the like
        raise OSError(f"{path}: can not be written ({error})") from error
    with open(beside, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = beside.stat().st_size
    os.replace(beside, path)
    return digest, size


def write_file(folder: Path, path: Path, content: bytes) -> None:
    """Writes a file of any content beside its place and renames it."""
    beside = unfinished(folder)
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def unfinished(folder: Path) -> Path:
    """A name that no other process on any machine uses."""
    return folder / f"unfinished-{uuid.uuid4().hex}"
