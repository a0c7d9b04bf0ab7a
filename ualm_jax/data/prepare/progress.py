"""How far a long job is: a live bar on a terminal, now and then a plain line elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_INTERVAL = 10.0  # seconds between plain lines


class ClipProgress:
    """Counts clips and seconds of audio. A context manager; `done` clips of `total` were there before. what: they
    become here."""

    def __init__(self, console: Console, what: str, total: int, done: int):
        self._console, self._what, self._total, self._done, self._first = console, what, total, done, done
        self._seconds = 0.0
        self._start = self._printed = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total, completed=done, rate="")

    def __enter__(self) -> "ClipProgress":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()
        self._line()

    def advance(self, clips: int, seconds: float) -> None:
        """`clips` more are through, which gave `seconds` of audio."""
        self._done += clips
        self._seconds += seconds
        self._bar.update(self._task, completed=self._done, rate=self._rate())
        if time.monotonic() - self._printed > _PLAIN_INTERVAL:
            self._line()

    def _rate(self) -> str:
        return f"{self._seconds / max(time.monotonic() - self._start, 1e-9):.1f} s of audio per second"

    def _line(self) -> None:
        self._printed = time.monotonic()
        if self._console.is_terminal:
            return
        elapsed, clips = time.monotonic() - self._start, self._done - self._first
        left = f", {elapsed / clips * (self._total - self._done):.0f} s left" if clips else ""
        # Not wrapped: a log line is one line.
        self._console.print(f"{self._what}: {self._done} of {self._total} clips, {self._rate()}{left}", soft_wrap=True)
