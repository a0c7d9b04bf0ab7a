"""A request to stop: a signal, read between two steps."""

import signal

import jax
import numpy as np
from jax.experimental import multihost_utils


class Stop:
    """Turns SIGINT and SIGTERM into a request that a loop reads between steps.

    every: steps between which processes agree on it; one alone needs no agreement.
    """

    def __init__(self, every: int):
        self._every = every

    def __enter__(self) -> "Stop":
        self._asked = False
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, *_):
        self._asked = True

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self, step: int) -> bool:
        """Whether any process was asked to stop."""
        if jax.process_count() == 1:
            return self._asked
        return step % self._every == 0 and bool(np.any(multihost_utils.process_allgather(np.array(self._asked))))
