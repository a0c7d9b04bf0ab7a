"""How far a preparing job is, in conversations and seconds of sound."""

import time

from rich.console import Console

from ualm_jax.progress import Bar


class ClipProgress:
    """Counts conversations and the seconds of sound in them. A context manager.

    what: the stage of the job. done: of `total`, finished by an earlier run of it.
    """

    def __init__(self, console: Console, what: str, total: int, done: int):
        self._bar = Bar(what, "{} of {} conversations".format, total, done=done, console=console)
        self._done, self._seconds = done, 0.0
        self._start = time.monotonic()
        self._first: tuple[float, float] | None = None  # time and seconds of sound when the first was ready

    def __enter__(self) -> "ClipProgress":
        self._bar.__enter__()
        return self

    def __exit__(self, error_type, *_) -> None:
        if error_type is None:
            passed = time.monotonic() - self._start
            rate = _rate(self._seconds, passed)
            self._bar.finish(f"in {passed:.1f} s{rate and f', {rate}'}")
        self._bar.__exit__()

    def advance(self, conversations: int, seconds: float) -> None:
        """`conversations` more are through, which hold `seconds` of sound."""
        self._done += conversations
        self._seconds += seconds
        now = time.monotonic()
        if self._first is None:
            # The time until the first was ready is not that of the others: programs were compiled, processes started.
            self._first = now, self._seconds
        passed = now - self._first[0]
        self._bar.update(self._done, _rate(self._seconds - self._first[1], passed) if passed > 0.5 else "")


def _rate(seconds: float, passed: float) -> str:
    return f"{seconds / max(passed, 1e-9):.1f} s of audio per second" if seconds else ""
