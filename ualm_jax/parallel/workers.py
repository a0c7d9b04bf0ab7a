"""Worker processes of this machine."""

import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

_LOOK_EVERY = 1.0  # seconds; within them Python itself notices a worker that died between results


def worker_pool(count: int, start: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """`count` new processes, each of which calls `start(*arguments)` before its first task.

    Ctrl-C and a scheduler's SIGTERM reach every process of a job; workers leave both to the process that started them,
    and end with it, however it ends. Where one of them is killed, every unfinished future has a BrokenProcessPool.
    """
    pool = ProcessPoolExecutor(count, _Context(), initializer=_begin, initargs=(start, *arguments))
    threading.Thread(target=_watch, args=(weakref.ref(pool),), daemon=True).start()
    return pool


def _watch(pool: weakref.ref[ProcessPoolExecutor]) -> None:
    """Ends a pool one of whose workers was killed halfway through sending a result.

    Python's own thread is then in the middle of reading that result. It looks at nothing else, and the pipe stays open
    since this process holds its other end (CPython 3.11 to 3.13, `concurrent.futures.process`).
    """
    while True:
        before = _dead(pool())
        time.sleep(_LOOK_EVERY)
        if (there := pool()) is None or there._result_queue is None:  # collected, or shut down
            return
        if before and not there._shutdown_thread:
            for worker in list(there._processes.values()):
                worker.kill()
            # The last end that is open: the reader then finds the end, and `shutdown` no handle to close again.
            writer = there._result_queue._writer
            handle, writer._handle = writer._handle, None
            os.close(handle)
            return
        del there


def _dead(pool: ProcessPoolExecutor | None) -> bool:
    processes = getattr(pool, "_processes", None) or {}
    return any(each.exitcode is not None for each in list(processes.values()))


class _Worker(SpawnProcess):
    def start(self) -> None:
        # Held back from the child's first moment on: while it imports, Python would answer with a traceback.
        resource_tracker.ensure_running()  # which, when it starts, lets the signal through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        # What a broken pool does to the workers that are left, and then it waits for them; they ignore SIGTERM.
        self.kill()


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
