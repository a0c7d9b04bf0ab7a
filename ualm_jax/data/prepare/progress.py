"""How far a long job is: a live bar on a terminal, now and then a plain line elsewhere."""

import logging
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_INTERVAL = 10.0  # seconds between plain lines


class ClipProgress:
    """Counts conversations and the seconds of sound in them. A context manager.

    what: the stage of the job. done: of `total`, finished by an earlier run of it.
    """

    def __init__(self, console: Console, what: str, total: int, done: int):
        self._console, self._what, self._total, self._done = console, what, total, done
        self._seconds = 0.0
        self._start = self._printed = time.monotonic()
        self._first: tuple[float, int, float] | None = None  # time, conversations and seconds when the first was ready
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total, completed=done, rate="")
        self._moved: list[tuple[logging.StreamHandler, object]] = []

    def __enter__(self) -> "ClipProgress":
        plain = sys.stdout
        self._bar.start()
        # Messages go above the bar, which has taken the place of stdout, and not through it.
        for handler in logging.getLogger().handlers:
            if self._console.is_terminal and isinstance(handler, logging.StreamHandler) and handler.stream is plain:
                self._moved.append((handler, handler.setStream(sys.stdout)))
        return self

    def __exit__(self, error_type, *_) -> None:
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._bar.stop()
        if error_type is None:
            passed = time.monotonic() - self._start
            self._print(f" in {passed:.1f} s{_rate(self._seconds, passed)}")

    def advance(self, conversations: int, seconds: float) -> None:
        """`conversations` more are through, which hold `seconds` of sound."""
        self._done += conversations
        self._seconds += seconds
        now = time.monotonic()
        if self._first is None:
            self._first = now, self._done, self._seconds
        # The time until the first was ready is not that of the others: programs were compiled, processes started.
        passed, count = now - self._first[0], self._done - self._first[1]
        rate = _rate(self._seconds - self._first[2], passed) if count and passed > 0.5 else ""
        self._bar.update(self._task, completed=self._done, rate=rate.removeprefix(", "))
        if now - self._printed > _PLAIN_INTERVAL:
            self._printed = now
            left = f", {passed / count * (self._total - self._done):.0f} s left" if count else ""
            if not self._console.is_terminal:
                self._print(f"{rate}{left}")

    def _print(self, rest: str) -> None:
        # Not wrapped: a log line is one line.
        self._console.print(f"{self._what}: {self._done} of {self._total} conversations{rest}", soft_wrap=True)


def _rate(seconds: float, passed: float) -> str:
    return f", {seconds / max(passed, 1e-9):.1f} s of audio per second" if seconds else ""
