"""A lock on a folder of a bucket: an object that whoever works there writes again and again.

A killed process leaves the object behind, which then no longer changes. Whoever finds such a one watches it for a
while, and takes it over. Every write names the version that it replaces, so of two processes that want the lock at once
one gets it.
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator

import tensorstore as ts
from etils import epath

from ualm_jax.errors import UserError, first_line

BEAT = 10.0  # seconds between two writes of the object
SILENCE = 60.0  # seconds without one after which its writer counts as gone
_NAME = "lock"
log = logging.getLogger(__name__)


@contextlib.contextmanager
def bucket_lock(folder: epath.Path) -> Iterator[None]:
    """Keeps other jobs out of a folder of a bucket for the duration of the context.

    Raises UserError if another job has it, or where nothing can be written. A process that was taken for dead, since it
    could not write for `SILENCE`, ends itself as soon as it finds that its lock was taken over.
    """
    with held(ts.KvStore.open(f"{folder}/").result(), str(folder)):
        yield


@contextlib.contextmanager
def held(store: ts.KvStore, where: str) -> Iterator[None]:
    """The lock in a key-value store; `where` is its name for people."""
    lock = _Lock(store, where)
    try:
        lock.take()
    except UserError:
        raise
    except Exception as error:  # tensorstore has no classes of its own
        reason = first_line(error)
        raise UserError(
            f"{where}: nothing can be written there ({reason}); does the bucket exist, and may you write to it?"
        ) from error
    ended = threading.Event()
    keeper = threading.Thread(target=lock.keep, args=(ended,), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        lock.release()


class _Lock:
    def __init__(self, store: ts.KvStore, where: str):
        self._store, self._where = store, where
        self._version = b""
        self._holder = f"process {os.getpid()} on {socket.gethostname()}"

    def take(self) -> None:
        found = self._store.read(_NAME).result()
        version, until = found.stamp.generation, time.monotonic() + SILENCE
        if found.state == "value":
            holder = _holder(found.value)
            log.info("%s: %s left its lock, or works here; watching it for %.0f s", self._where, holder, SILENCE)
        while found.state == "value" and time.monotonic() < until:
            time.sleep(min(BEAT / 2, SILENCE / 4))
            found = self._store.read(_NAME).result()
            if found.state == "value" and found.stamp.generation != version:
                self._refuse()
        if not self._write(found.stamp.generation):
            self._refuse()

    def _refuse(self) -> None:
        holder = _holder(self._store.read(_NAME).result().value)
        raise UserError(f"{self._where}: {holder} is writing here; wait until it has ended, or choose another folder")

    def _write(self, version: bytes) -> bool:
        """Writes the object where it has this version; whether it had."""
        text = f"{self._holder}\n{secrets.token_hex(8)}\n".encode()
        written = self._store.write(_NAME, text, if_equal=version).result().generation
        if not written:
            # It may be ours: a write whose answer was lost is tried again by tensorstore, and then finds itself.
            found = self._store.read(_NAME).result()
            written = found.stamp.generation if found.value == text else b""
        self._version = written or version
        return bool(written)

    def keep(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            try:
                if self._write(self._version):
                    continue
            except Exception as error:  # of the network: tensorstore has tried again and again
                log.warning("%s: its lock could not be written (%s)", self._where, first_line(error))
                continue
            log.error("%s: another process has taken over, since this one was silent for too long", self._where)
            os._exit(1)

    def release(self) -> None:
        self._store.write(_NAME, None, if_equal=self._version).result()


def _holder(content: bytes) -> str:
    return (content.decode(errors="replace").splitlines() or ["another process"])[0]
