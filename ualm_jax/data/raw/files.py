"""Raw files, on disk or behind an fsspec URL (s3://, gs://, https://, ...), and the sounds in them."""

import dataclasses
import glob
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ualm_jax.audio.io import BadAudio, read_audio
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError


def is_url(path: str | os.PathLike) -> bool:
    return "://" in str(path)


def open_binary(path: str | os.PathLike) -> io.IOBase:
    """A seekable file. Raises OSError where there is none, UserError where nothing installed opens such a URL."""
    if not is_url(path):
        return open(path, "rb")
    system, inner = _file_system(path)
    return system.open(inner, "rb")


def matching(pattern: str | os.PathLike) -> list[str]:
    """The files that a glob names (`**`: in any folder below), in order of their names. URLs as in `open_binary`."""
    if not is_url(pattern):
        return sorted(glob.glob(os.fspath(pattern), recursive=True))
    system, inner = _file_system(pattern)
    try:
        return sorted(map(system.unstrip_protocol, system.glob(inner)))
    except OSError as error:
        raise UserError(f"{pattern}: can not be listed ({error})") from error


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
    """The segment [start, end) in seconds of a sound file; only that is read."""

    path: str
    start: float = 0.0
    end: float | None = None

    def read(self, sample_rate: int) -> Float32[np.ndarray, "N"]:
        segment = {"sample_rate": sample_rate, "start": self.start, "end": self.end}
        if not is_url(self.path):
            return read_audio(self.path, **segment)
        try:
            with open_binary(self.path) as file:
                return read_audio(self.path, file=file, **segment)
        except OSError as error:
            raise BadAudio(f"{self.path}: can not be opened ({error})") from error


@dataclasses.dataclass(frozen=True)
class EncodedSound:
    """A sound file in memory; `name` stands for it in messages."""

    name: str
    content: bytes

    def read(self, sample_rate: int) -> Float32[np.ndarray, "N"]:
        return read_audio(self.name, sample_rate=sample_rate, file=io.BytesIO(self.content))
