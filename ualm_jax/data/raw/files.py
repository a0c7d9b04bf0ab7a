"""Raw files, on disk or behind an fsspec URL (s3://, gs://, https://, ...), and the sounds in them."""

import dataclasses
import glob
import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ualm_jax.audio.io import BadAudio, read_audio
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError

ROUNDING = 0.05  # seconds by which the duration that a record states may differ from what is there


def is_url(path: str | os.PathLike) -> bool:
    return "://" in str(path)


def open_binary(path: str | os.PathLike) -> io.IOBase:
    """A seekable file. Raises OSError where there is none, UserError where nothing installed opens such a URL."""
    if not is_url(path):
        return open(path, "rb")
    system, inner = _file_system(path)
    return system.open(inner, "rb")


def matching(pattern: str | os.PathLike) -> list[str]:
    """The files that a name or a pattern stands for, in order of their names. URLs as in `open_binary`.

    A file of that very name comes first. Else {000..009} and {a,b} stand for several names, each of which must be
    there, and `*`, `?`, `[ab]` and `**` (any folder below) for any that are. Raises UserError for a name out of braces
    that is not there, and for a folder.
    """
    pattern = os.fspath(pattern)
    names = [pattern] if _is_file(pattern) else _expanded(pattern)
    found: list[str] = []
    for name in names:
        found_here = [name] if _is_file(name) else _glob(name)
        if not found_here and len(names) > 1:
            raise UserError(f"{name}: there is no such file, one of the {len(names)} that {pattern} stands for")
        found += found_here
    return found


def _is_file(path: str) -> bool:
    if not is_url(path):
        return os.path.isfile(path)
    system, inner = _file_system(path)
    return system.isfile(inner)


def _glob(pattern: str) -> list[str]:
    if not is_url(pattern):
        return sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    system, inner = _file_system(pattern)
    try:
        return sorted(map(system.unstrip_protocol, system.glob(inner)))
    except OSError as error:
        raise UserError(f"{pattern}: can not be listed ({error})") from error


def _expanded(pattern: str) -> list[str]:
    """The names that braces stand for, as in a shell; the last brace counts fastest."""
    braces = re.search(r"\{(-?\d+)\.\.(-?\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    first, last, listed = braces.groups()
    if listed is not None:
        options = listed.split(",")
    else:
        width = max(len(first), len(last)) if "0" in (first[:1], last[:1]) else 0
        step = 1 if int(first) <= int(last) else -1
        options = [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [before + option + rest for option in options for rest in _expanded(after)]


def _file_system(url: str | os.PathLike) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(str(url))
    except (ImportError, ValueError) as error:  # of fsspec, or of what it needs for this kind of URL
        raise UserError(
            f"{url}: can not be opened ({error}); URLs need `pip install '.[remote]'`, s3:// also s3fs, "
            "gs:// gcsfs, and http:// aiohttp and requests"
        ) from error


def beside(path: str | os.PathLike) -> str:
    """The folder that a file lies in."""
    return str(path).rsplit("/", 1)[0] if is_url(path) else os.fspath(Path(path).parent)


def inside(root: str, path: str, where: str) -> str:
    """`path` as it is if absolute or a URL, else within `root`. Raises BadRecord where it leads out of `root`."""
    if os.path.isabs(path) or is_url(path):
        return path
    relative = os.path.normpath(path)
    if relative.split(os.sep)[0] == "..":
        raise BadRecord(f"{where}: audio {path!r} leads out of {root}; write an absolute path instead")
    return f"{root}/{relative}" if is_url(root) else os.path.join(root, relative)


def hash_directory(directory: str | os.PathLike) -> str:
    """sha256 over the names and contents of all files."""
    directory, digest = Path(directory), hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{content} {path.relative_to(directory).as_posix()}\n".encode())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class FileSound:
    """The segment [start, end) in seconds of a sound file; only that is read.

    whole: how long the whole file should be, where its record says that; None where it does not.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    whole: float | None = None

    def read(self, sample_rate: int) -> Float32[np.ndarray, "N"]:
        """Mono, full scale 1. Raises BadAudio where it can not be read or does not last as long as it should."""
        segment = {"sample_rate": sample_rate, "start": self.start, "end": self.end}
        if is_url(self.path):
            wav = self._read_url(segment)
        else:
            wav = read_audio(self.path, **segment)
        check_length(self.path, wav, sample_rate, self.whole)
        return wav

    def _read_url(self, segment: dict[str, Any]) -> Float32[np.ndarray, "N"]:
        try:
            file = open_binary(self.path)
        except UserError as error:  # one record with an odd URL is no reason to stop
            raise BadAudio(str(error)) from error
        except OSError as error:
            raise BadAudio(f"{self.path}: can not be opened ({error})") from error
        with file:
            return read_audio(self.path, file=file, **segment)


@dataclasses.dataclass(frozen=True)
class EncodedSound:
    """A sound file in memory; `name` stands for it in messages. whole: as in FileSound."""

    name: str
    content: bytes
    whole: float | None = None

    def read(self, sample_rate: int) -> Float32[np.ndarray, "N"]:
        wav = read_audio(self.name, sample_rate=sample_rate, file=io.BytesIO(self.content))
        check_length(self.name, wav, sample_rate, self.whole)
        return wav


def check_length(name: str, wav: Float32[np.ndarray, "N"], sample_rate: int, whole: float | None) -> None:
    """Raise BadAudio where a whole sound does not last as long as its record says."""
    seconds = len(wav) / sample_rate
    if whole is not None and abs(seconds - whole) > ROUNDING:
        raise BadAudio(
            f"{name}: lasts {seconds:g} s, but its record says 'duration' {whole:g}; name a segment by its start, too, "
            "or mend or ignore the field"
        )
