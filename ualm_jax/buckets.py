"""A run's folder, on this machine or in a bucket of Google Cloud Storage, and what differs between the two.

A bucket holds objects. Each is written whole or not at all; none can be appended to or renamed, and folders are no more
than what names begin with. Orbax stores arrays there by itself. What libraries read as files is copied here first, and
what grows line by line is kept here and copied there now and then.
"""

import atexit
import base64
import contextlib
import functools
import importlib.util
import os
import pathlib
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from ualm_jax.errors import UserError

Folder = pathlib.Path | epath.Path
"""`epath.Path` of what lies in a bucket, `pathlib.Path` of all else; `open_folder` makes one."""

COMMITTED = "commit_success.txt"
"""What Orbax writes last into a folder of a bucket."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]+(/|$)")


def open_folder(path: str | os.PathLike) -> Folder:
    """The folder that a path or a URL gs://BUCKET/PATH names. Nothing is looked at yet.

    Raises UserError for another URL, or where packages that buckets need are missing.
    """
    text = os.fspath(path)
    if not _URL.match(text):
        return pathlib.Path(path)
    if not _BUCKET.match(text):
        other = "; Orbax, which stores a run's arrays, writes to no other kind of storage" * (
            not text.startswith("gs:")
        )
        raise UserError(f"{text}: expected a folder on this machine or gs://BUCKET/PATH{other}")
    for package in ("gcsfs", "google.cloud.storage"):  # Orbax asks the second about a bucket
        if not _installed(package):
            raise UserError(f"{text} needs {package}, which is not installed; in a checkout: pip install '.[gcs]'")
    import fsspec

    os.environ["EPATH_USE_TF"] = "false"  # where TensorFlow is installed, epath would take its file system instead
    # Listings are not kept: other processes, and tensorstore in this one, write objects that gcsfs does not know of.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return epath.Path(text)


def in_bucket(folder: Folder) -> bool:
    return isinstance(folder, epath.Path)


def write(path: Folder, content: str | bytes) -> None:
    """Writes a file, which is there whole or not at all, whenever the process ends."""
    data = content.encode() if isinstance(content, str) else content
    if in_bucket(path):
        path.write_bytes(data)
        return
    beside = path.with_name(f".{path.name}.partial")
    beside.write_bytes(data)
    os.replace(beside, path)


def replace_folder(target: Folder, source: pathlib.Path) -> None:
    """Makes `target` a copy of `source`. On this machine it is there whole or not at all."""
    if in_bucket(target):
        target.rmtree(missing_ok=True)
        _client().put(f"{source}/", f"{target}/", recursive=True)
        return
    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(beside, target)


def here(folder: Folder) -> pathlib.Path:
    """`folder`, or a copy of what lies in a bucket, which stays until the process ends."""
    if not in_bucket(folder):
        return folder
    return _copy(str(folder), tuple(sorted(objects(folder).items())))


@contextlib.contextmanager
def filled(folder: Folder) -> Iterator[pathlib.Path]:
    """A folder here to be filled: `folder` itself, or one that is copied there when the context ends."""
    if not in_bucket(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ualm-") as made:
        yield pathlib.Path(made)
        if os.listdir(made):
            _client().put(f"{made}/", f"{folder}/", recursive=True)


def absolute(folder: Folder) -> Folder:
    return folder if in_bucket(folder) else folder.absolute()


def normal(path: Folder) -> Folder:
    """Without "..", which a bucket would take for a name."""
    if not in_bucket(path):
        return path
    return epath.Path("gs://" + posixpath.normpath(str(path).removeprefix("gs://")))


def objects(folder: epath.Path) -> dict[str, str | None]:
    """MD5, in hexadecimal digits, of all objects in a folder of a bucket, by their path from it; as the bucket lists
    it, nothing is read. None of those that were put together from parts, which have none."""
    found = _client().find(str(folder), detail=True)
    start = len(str(folder).removeprefix("gs://")) + 1
    digits = {name[start:]: info.get("md5Hash") for name, info in found.items()}
    return {name: base64.b64decode(md5).hex() if md5 else None for name, md5 in digits.items()}


class Spool:
    """Files of `folder` that grow. They lie in `here`, which is `folder` itself where that is on this machine."""

    def __init__(self, folder: Folder):
        self._folder = folder
        self._made = tempfile.TemporaryDirectory(prefix="ualm-") if in_bucket(folder) else None
        self.here = folder if self._made is None else pathlib.Path(self._made.name)
        self._sent: dict[pathlib.Path, tuple[int, int]] = {}

    def bring(self, name: str) -> pathlib.Path:
        """A file as the bucket has it, if it has it."""
        if self._made is not None and (self._folder / name).exists():
            (self.here / name).write_bytes((self._folder / name).read_bytes())
        return self.here / name

    def send(self) -> None:
        """Copies what has changed since the last time to the bucket."""
        if self._made is None:
            return
        for path in filter(pathlib.Path.is_file, self.here.rglob("*")):
            stat = path.stat()
            version = stat.st_size, stat.st_mtime_ns
            if self._sent.get(path) != version:
                _client().put_file(str(path), str(self._folder / path.relative_to(self.here)))
                self._sent[path] = version


@functools.cache
def _copy(folder: str, content: tuple) -> pathlib.Path:
    """content: what the bucket lists, so that a folder that was written anew is copied anew."""
    made = tempfile.mkdtemp(prefix="ualm-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    _client().get(f"{folder}/", f"{made}/", recursive=True)
    return pathlib.Path(made)


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of what it lies in
        return False


@functools.cache
def _client() -> Any:
    """The file system of all buckets, as epath, and so Orbax, has it too."""
    import fsspec

    return fsspec.filesystem("gcs", finalize_on_close=True)
