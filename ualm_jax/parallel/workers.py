"""Worker processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any


def worker_pool(count: int, start: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """`count` new processes, each of which calls `start(*arguments)` before its first task.

    Ctrl-C and a scheduler's SIGTERM reach every process of a job; workers leave both to the process that started them,
    and end with it, however it ends.
    """
    return ProcessPoolExecutor(count, _Context(), initializer=_begin, initargs=(start, *arguments))


class _Worker(SpawnProcess):
    def start(self) -> None:
        # Held back from the child's first moment on: while it imports, Python would answer with a traceback.
        resource_tracker.ensure_running()  # which, when it starts, lets the signal through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    Process = _Worker


def _begin(start: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    """A parent that was killed closes no queue; its workers would wait for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
