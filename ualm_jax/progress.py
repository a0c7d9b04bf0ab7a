"""How far a long job is: a live bar on a terminal, now and then a plain line elsewhere."""

import logging
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Bar:
    """A job's bar, as a context manager. Lines of the log go above it.

    what: the job. count: (done, total) to words, such as "3 of 8 clips". done: what an earlier run of the job has done.
    console: None is stdout. interval: seconds between plain lines where there is no terminal; None for a job that has
    lines of its own. live: what stands beside the bar on a terminal, such as a rate; asked for whenever that is drawn.
    """

    def __init__(
        self,
        what: str,
        count: Callable[[int, int], str],
        total: int,
        *,
        done: int = 0,
        console: Console | None = None,
        interval: float | None = 10.0,
        live: Callable[[], str] | None = None,
    ):
        self._console = Console() if console is None else console
        self._what, self._count, self._total, self._done = what, count, total, done
        self._interval, self._printed = interval, time.monotonic()
        self._first: tuple[float, int] | None = None  # time and `done` at the first update
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=40 if live is None else 15),  # on a line of 80 there is room for both
            TextColumn("{task.fields[words]}", markup=False),
            TimeRemainingColumn(),
        )
        columns += () if live is None else (_Live(live),)
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(what, total=total, completed=done, words=count(done, total))
        self._moved: list[tuple[logging.StreamHandler, object]] = []

    def __enter__(self) -> "Bar":
        plain = sys.stdout
        self._bar.start()
        # The bar has taken the place of stdout; what still writes to the old one would write through it.
        for handler in logging.getLogger().handlers:
            if self._console.is_terminal and isinstance(handler, logging.StreamHandler) and handler.stream is plain:
                self._moved.append((handler, handler.setStream(sys.stdout)))
        return self

    def __exit__(self, *_) -> None:
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._bar.stop()

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """note: what else is known, such as a rate. total: where it becomes known on the way."""
        self._done, self._total = done, self._total if total is None else total
        now = time.monotonic()
        if self._first is None:
            # The time until here is not that of the rest: programs were compiled, processes started.
            self._first = now, done
        words = self._count(done, self._total) + (note and f", {note}")
        self._bar.update(self._task, completed=done, total=self._total, words=words)
        if self._interval is not None and not self._console.is_terminal and now - self._printed > self._interval:
            self._printed = now
            passed, gone = now - self._first[0], done - self._first[1]
            left = f", {passed / gone * (self._total - done):.0f} s left" if gone else ""
            self._print(f"{words}{left}")

    def finish(self, note: str) -> None:
        """The last line, which stays."""
        self._bar.refresh()
        self._print(f"{self._count(self._done, self._total)} {note}")

    def _print(self, words: str) -> None:
        # Not wrapped: a log line is one line.
        self._console.print(f"{self._what}: {words}", soft_wrap=True, markup=False)


class _Live(ProgressColumn):
    """Words that change without an update."""

    def __init__(self, words: Callable[[], str]):
        super().__init__()
        self._words = words

    def render(self, task: Task) -> Text:
        return Text(self._words())
