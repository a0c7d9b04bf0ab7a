"""Folders that a job writes: checked before any work begins, and locked against a second job."""

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from ualm_jax.errors import UserError

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # of some network file systems
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_new_folder(path: str | os.PathLike) -> Path:
    """The absolute path of a folder that shall be made. It may be there if it is empty.

    Raises UserError: it is a URL, it exists and is not empty, or no folder can be made there.
    """
    if not os.fspath(path) or _URL.match(os.fspath(path)):
        raise UserError(f"{path or 'an empty path'}: expected a folder on this machine to write to")
    path = Path(path).absolute()
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file, expected a folder to make; choose another name")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path}: exists already and is not empty; choose another folder or remove it")
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{path}: can not be made, since {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{path}: can not be made, since {above} can not be written to")
    return path


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps other jobs out of an existing folder for the duration of the context, with a file `lock` in it.

    The system releases the lock when the process ends, however it ends. Raises UserError if another job has it.
    """
    with open(folder / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{folder}: {file.read().strip() or 'another process'} is writing here; wait until it has ended, or "
                "choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            log.warning("%s: its file system has no locks; make sure that no other job writes here", folder)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
