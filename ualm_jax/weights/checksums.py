"""SHA-256 of files, in the format that `sha256sum -c` reads: written when files are finished, compared before use."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from ualm_jax.errors import UserError


def sha256(file: pathlib.Path) -> str:
    """Of the content, in hexadecimal digits."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sha256_of(root: pathlib.Path, files: Iterable[pathlib.Path]) -> dict[str, str]:
    """SHA-256 of files by their path from `root`, as many at once as there are cores."""
    files = sorted(files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip((os.path.relpath(file, root) for file in files), pool.map(sha256, files), strict=True))


def files_below(*folders: pathlib.Path) -> list[pathlib.Path]:
    """All files in these folders and the folders in them; none where one is not there."""
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def first_change(root: pathlib.Path, sums: Mapping[str, str]) -> str | None:
    """What is wrong with the first file that is not as `sums` says; None where all are."""

    def change(item: tuple[str, str]) -> str | None:
        name, expected = item
        if not (root / name).is_file():
            return f"{name} is missing"
        return None if sha256(root / name) == expected else f"{name} has another SHA-256 than when it was written"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return next(filter(None, pool.map(change, sorted(sums.items()))), None)


def write_sums(file: pathlib.Path, sums: Mapping[str, str]) -> None:
    """One line per file: SHA-256, two spaces, path."""
    file.write_text("".join(f"{found}  {name}\n" for name, found in sorted(sums.items())))


def read_sums(file: pathlib.Path) -> dict[str, str]:
    """What `write_sums` wrote. Raises UserError where it is damaged."""
    sums = {}
    for line in file.read_text(errors="replace").splitlines():
        found, separator, name = line.partition("  ")
        if len(found) != 64 or not separator or not name:
            raise UserError(f"{file}: expected lines of a SHA-256 and a path, found {line[:80]!r}.")
        sums[name] = found
    return sums
