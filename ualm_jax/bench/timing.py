"""Timing of several ways to do the same work, in turn, so that what else the machine does slows all of them."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of each counted run, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.seconds), max(self.seconds)

    def to_mapping(self) -> dict[str, float | int]:
        """Ready for JSON: median, min and max in seconds, and how many runs they are of."""
        low, high = self.spread
        return {"median": self.median, "min": low, "max": high, "runs": len(self.seconds)}


def time_in_turn(runs: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1) -> dict[str, Timing]:
    """Each run `warmup` times, then `repeats` rounds of all of them. A run returns when its work is done."""
    for _ in range(warmup):
        for run in runs.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
