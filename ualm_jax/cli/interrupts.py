"""Ctrl-C ends a verb at once, its worker processes too, and work that Python cannot interrupt."""

import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

GRACE = 3.0  # seconds for a verb to put its things away
_SWALLOWED = 0  # beside the numbers of signals


def watch(end: Callable[[], None]) -> None:
    """From now on SIGINT kills the worker processes and raises KeyboardInterrupt in the main thread.

    end: called, in another thread, where that has not ended the process within GRACE seconds, where something swallowed
        the exception, or at a second SIGINT; it must end the process.

    A verb that handles SIGINT itself, as training does to save first, is left alone, and so is a process that was
    started to ignore it. Call it from the main thread.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.signal(signal.SIGINT, _interrupt)
    # Python runs handlers between its own instructions; this tells the thread even while XLA compiles.
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_guard, args=(told, end), name="ctrl-c", daemon=True).start()
    show = sys.unraisablehook

    def notice(unraisable) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):  # raised in a destructor or the like
            os.write(tell, bytes([_SWALLOWED]))
        else:
            show(unraisable)

    sys.unraisablehook = notice


def kill_workers() -> None:
    """Ends the processes that `multiprocessing` has started for this one."""
    for process in multiprocessing.active_children():
        process.kill()


def _interrupt(*_) -> None:
    kill_workers()  # before anything waits for them to finish what they are at
    raise KeyboardInterrupt


def _guard(told: int, end: Callable[[], None]) -> None:
    while True:
        (number,) = os.read(told, 1)
        if number == _SWALLOWED:
            end()
        if number == signal.SIGINT and signal.getsignal(signal.SIGINT) is _interrupt:
            select.select([told], [], [], GRACE)
            end()
