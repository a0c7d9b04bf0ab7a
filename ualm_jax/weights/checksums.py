"""Sums of files, in the format that `sha256sum -c` reads: written when files are finished, compared before use.

They are SHA-256. Of what lies in a bucket they are the MD5 that the bucket itself keeps of every object: checkpoints of
any size are then summed and compared without reading them back.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from ualm_jax.buckets import Folder, in_bucket, normal, objects, write
from ualm_jax.errors import UserError

_KINDS = {64: "SHA-256", 32: "MD5"}  # by their hexadecimal digits


def sha256(file: pathlib.Path) -> str:
    """The SHA-256 of the content, in hexadecimal digits."""
    return _digest(file, "SHA-256")


def sha256_of(root: pathlib.Path, files: Iterable[pathlib.Path]) -> dict[str, str]:
    """SHA-256 of files by their path from `root`, as many at once as there are cores."""
    files = sorted(files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip((os.path.relpath(file, root) for file in files), pool.map(sha256, files), strict=True))


def files_below(*folders: pathlib.Path) -> list[pathlib.Path]:
    """All files in these folders and the folders in them; none where one is not there."""
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def sums_of(root: Folder, *folders: Folder) -> dict[str, str]:
    """Sums of all files in these folders, and the folders in them, by their path from `root`."""
    if not in_bucket(root):
        return sha256_of(root, files_below(*folders))
    found = {folder / name: md5 for folder in folders for name, md5 in objects(folder).items()}
    return {os.path.relpath(file, root): md5 or _digest(file, "MD5") for file, md5 in found.items()}


def first_change(root: Folder, sums: Mapping[str, str]) -> str | None:
    """What is wrong with the first file that is not as `sums` says; None where all are."""
    kept = _kept(root, sums) if in_bucket(root) else None

    def change(item: tuple[str, str]) -> str | None:
        name, expected = item
        if name not in kept if kept is not None else not (root / name).is_file():
            return f"{name} is missing"
        kind = _KINDS[len(expected)]
        found = kept[name] if kept is not None and kind == "MD5" else None
        same = (found or _digest(normal(root / name), kind)) == expected
        return None if same else f"{name} has another {kind} than when it was written"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return next(filter(None, pool.map(change, sorted(sums.items()))), None)


def write_sums(file: Folder, sums: Mapping[str, str]) -> None:
    """One line per file: its sum, two spaces, path."""
    write(file, "".join(f"{found}  {name}\n" for name, found in sorted(sums.items())))


def read_sums(file: Folder) -> dict[str, str]:
    """Reads what `write_sums` wrote. Raises UserError where it is damaged."""
    sums = {}
    for line in file.read_bytes().decode(errors="replace").splitlines():
        found, separator, name = line.partition("  ")
        if len(found) not in _KINDS or not separator or not name:
            raise UserError(f"{file}: expected lines of a sum and a path, found {line[:80]!r}.")
        sums[name] = found
    return sums


def _digest(file: Folder, kind: str) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, kind.replace("-", "").lower()).hexdigest()


def _kept(root: epath.Path, names: Iterable[str]) -> dict[str, str | None]:
    """MD5 that a bucket keeps of the files `names` that are there, None of those of which it keeps none."""
    files = {name: str(normal(root / name)) for name in names}
    top = os.path.commonpath([str(root), *files.values()]).replace("gs:/", "gs://", 1)
    found = objects(epath.Path(top))
    return {name: found[file[len(top) + 1 :]] for name, file in files.items() if file[len(top) + 1 :] in found}
