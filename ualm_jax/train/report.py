"""What a loop reports of its steps, one step late: metrics, lines, and a progress bar where there is a terminal."""

import collections
import logging
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from ualm_jax.errors import UserError
from ualm_jax.progress import Bar
from ualm_jax.train.metrics import MetricWriter, Throughput, format_eta

log = logging.getLogger(__name__)

Metrics = dict[str, np.ndarray]


class Reporter:
    """Reads each step's metrics one step later, so that the host never waits for the device it feeds.

    steps: of the whole run. log_every: steps between lines.
    shown: metrics of the console line.
    rates: what a step did, by the name under which its amount per second is reported.
    derive: metrics that follow from the step and its metrics.
    """

    def __init__(
        self,
        writer: MetricWriter,
        *,
        steps: int,
        log_every: int,
        shown: Sequence[str] = ("loss", "grad_norm"),
        rates: Mapping[str, Callable[[Metrics], float]],
        derive: Callable[[int, Metrics], dict[str, float]] = lambda step, metrics: {},
    ):
        self._writer, self._steps, self._log_every = writer, steps, log_every
        self._shown, self._rates, self._derive = tuple(shown), rates, derive
        self.clock = Throughput()
        self._compiled = False
        self._bar: Bar | None = None  # from the first step on
        self._pending: collections.deque = collections.deque()

    def add(
        self,
        step: int,
        metrics: dict[str, jax.Array],
        record_names: Callable[[], Sequence[str]],
        progress: Callable[[], dict[str, float]],
    ) -> None:
        """record_names: the records of the step's batch, asked for where they are to blame. progress: more metrics,
        asked for at once where the step has a line."""
        self._pending.append((step, metrics, record_names, progress() if self._due(step) else {}))
        if len(self._pending) > 1:
            self._report(*self._pending.popleft())

    def flush(self) -> None:
        """Reports all that was added. Raises UserError where a metric is not finite."""
        while self._pending:
            self._report(*self._pending.popleft())
        self._writer.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__()
        self._writer.close()

    def _due(self, step: int) -> bool:
        return step % self._log_every == 0 or step == self._steps

    def _show(self, step: int, note: str) -> None:
        if jax.process_index() != 0:
            return
        if self._bar is None:
            self._bar = Bar("training", "step {} of {}".format, self._steps, done=step - 1, interval=None)
            self._bar.__enter__()
        self._bar.update(step, note)

    def _report(self, step: int, metrics: dict[str, jax.Array], record_names, progress: dict[str, float]) -> None:
        values: Metrics = jax.device_get(metrics)
        broken = [f"{name} is {value}" for name, value in flat(values).items() if not np.isfinite(value)]
        if broken:
            records = ", ".join(dict.fromkeys(record_names()))
            raise UserError(
                f"Step {step}: {' and '.join(broken[:3])}; the batch held the records {records}; "
                "look at these, or lower the learning rate."
            )
        if self._compiled:
            self.clock.count({name: float(amount(values)) for name, amount in self._rates.items()})
        else:  # the first step is mostly compilation and says nothing of the others
            self._compiled = True
            self.clock.restart()
        scalars = flat(values)
        self._show(step, " ".join(f"{name} {scalars[name]:.4g}" for name in self._shown[:1]))
        if not self._due(step):
            return
        seconds, waited, rates = self.clock.rates()
        timing = {"seconds_per_step": seconds, "data_seconds_per_step": waited, **rates} if seconds else {}
        scalars |= self._derive(step, values) | timing | progress
        self._writer.scalars(step, scalars)
        words = [f"step {step}/{self._steps}"]
        words += [f"{name.replace('_', ' ')} {scalars[name]:.4g}" for name in self._shown]
        words += [_rate(name, rate) for name, rate in rates.items()]
        if seconds:
            words += [f"{seconds:.3g} s/step", f"ETA {format_eta((self._steps - step) * seconds)}"]
        log.info("%s", "  ".join(words))


def flat(metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics as numbers; a vector under `name` as `name_0`, `name_1`, ..."""
    numbers = {}
    for name, value in metrics.items():
        if np.ndim(value):
            numbers |= {f"{name}_{index}": float(entry) for index, entry in enumerate(value)}
        else:
            numbers[name] = float(value)
    return numbers


def _rate(name: str, rate: float) -> str:
    if name.endswith("_per_second"):
        return f"{rate:.0f} {name.removesuffix('_per_second')}/s"
    return f"{name.upper()} {rate:.1%}"
