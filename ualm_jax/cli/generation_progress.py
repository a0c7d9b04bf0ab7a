"""How far generation is, and how fast: a bar on a terminal, plain lines elsewhere, and a line in the end."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

from rich.console import Console

from ualm_jax.progress import Bar


class Speed:
    """The speed of an engine since this object was made. frame_rate: steps in a second of sound."""

    def __init__(self, engine, frame_rate: float):
        self._engine, self._frame_rate = engine, frame_rate
        self._before, self._began = self._counts(), time.perf_counter()

    def __str__(self) -> str:
        steps, made, frames = (now - then for now, then in zip(self._counts(), self._before, strict=True))
        seconds = time.perf_counter() - self._began
        said = f"{seconds:.1f} s, {steps / seconds:,.0f} steps/s"
        if frames:
            said += f", {frames / self._frame_rate / seconds:,.2f} x real time"
        busy = made / max(steps * self._engine.slots, 1)
        return said if self._engine.slots == 1 else f"{said}, slots {busy:.0%} busy"

    def _counts(self) -> tuple[int, int, int]:
        return self._engine.steps, self._engine.slot_steps, self._engine.frames


@contextlib.contextmanager
def progress(what: str, total: int, speed: Speed) -> Iterator[Callable[[], None]]:
    """Gives what to call when one of `total` is done."""
    done = itertools.count(1)
    with Bar(what, "{} of {}".format, total, console=Console(stderr=True), live=speed.__str__) as bar:
        yield lambda: bar.update(next(done))
