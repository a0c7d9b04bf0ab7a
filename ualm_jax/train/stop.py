"""A request to stop: a signal or a scheduler's notice, read between two steps."""

import signal

import jax
import numpy as np
from jax.experimental import multihost_utils

from ualm_jax.parallel.processes import from_all


class Stop:
    """Turns SIGINT and SIGTERM into a request that a loop reads between steps.

    Of many processes, JAX's preemption service hears SIGTERM and makes them stop at the same step, also where only one
    was told; on SIGINT they agree every `every` steps.
    """

    def __init__(self, every: int):
        self._every = every
        self._asks = 0
        self._noticed = jax.process_count() > 1 and jax.config.jax_enable_preemption_service

    def __enter__(self) -> "Stop":
        self._asked = False
        # The service has its own handler of SIGTERM, which one of ours would replace.
        numbers = (signal.SIGINT,) if self._noticed else (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def _ask(self, *_):
        self._asked = True

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self, step: int) -> bool:
        """Whether any process was asked to stop; the same on all of them. To be asked once before every step."""
        if jax.process_count() == 1:
            return self._asked
        # The service agrees on the count after the largest that a process has come to. It is told how often it was
        # asked instead of the step: of a notice before the first one it says 1, which a resumed run would never meet.
        self._asks += 1
        if self._noticed and multihost_utils.reached_preemption_sync_point(self._asks):
            return True
        return step % self._every == 0 and bool(np.any(from_all("agree whether to stop", np.array(self._asked))))
