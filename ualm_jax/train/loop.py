"""The training loop: save, evaluate, draw a batch, step, report; so ordered, a resumed run repeats and skips nothing.

It knows no loss, no model and no dataset: a GAN with two optimisers, a codec and a language model all run on it.
"""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from ualm_jax.train.batches import Batches
from ualm_jax.train.checkpoint import Checkpoints
from ualm_jax.train.report import Reporter
from ualm_jax.train.stop import Stop

log = logging.getLogger(__name__)


@runtime_checkable
class Evaluator(Protocol):
    """What is measured or made on the way, every `every` steps and at the end. It keeps its workers between runs."""

    every: int

    def run(self, step: int, state: Any) -> None:
        """Run again at a step where it was interrupted, it replaces what it left."""

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Run:
    """All that `fit` knows of a training run.

    state: a pytree with a leaf `step`, the steps taken: fresh, or what `checkpoints` restored.
    step: (state, batch) to the next state and its metrics, numbers and vectors by name. It may donate the state.
    batches: stand where the state was saved.
    checkpoints: hold the identity that a continuation must agree with.
    steps: of the whole run. stop_every: steps between which many processes agree whether to stop.
    """

    state: Any
    step: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    batches: Batches
    checkpoints: Checkpoints
    reporter: Reporter
    steps: int
    stop_every: int = 10
    evaluators: tuple[Evaluator, ...] = ()


def fit(run: Run) -> int:
    """Trains until `run.steps` or a signal; returns the step reached, which is saved.

    SIGINT and SIGTERM finish the step, save and return. Raises UserError for a metric that is not finite.
    """
    with contextlib.ExitStack() as stack:
        for part in (run.checkpoints, run.batches, run.reporter, *run.evaluators):
            stack.callback(part.close)
        stop = stack.enter_context(Stop(run.stop_every))
        step = _fit(run, stop)
        run.checkpoints.wait()
    if step < run.steps:
        log.info("stopped at step %d, saved; the same command goes on from there", step)
    return step


def _fit(run: Run, stop: Stop) -> int:
    state, reporter = run.state, run.reporter
    first = step = int(state.step)
    while True:
        stopped = stop.requested(step)
        ending = stopped or step >= run.steps
        if step > first:
            with reporter.clock.pause():
                if ending or run.checkpoints.due(step):
                    # A state whose loss was not finite must never become a checkpoint.
                    reporter.flush()
                    run.checkpoints.save(step, state, run.batches, force=ending)
        # After the save, so that a failing evaluation loses no step. One that was due where a run was interrupted is
        # done, or done again, where it goes on.
        due = [one for one in run.evaluators if step and (step % one.every == 0 or step == run.steps)]
        if due and not stopped and first < run.steps:
            with reporter.clock.pause():
                reporter.flush()
                for evaluator in due:
                    evaluator.run(step, state)
        if ending:
            return step
        with reporter.clock.wait():
            batch, records = _next_batch(run, step, state)  # only after the save, which records where the data stands
        state, metrics = run.step(state, batch)
        step += 1
        names = functools.partial(run.batches.record_names, records)
        reporter.add(step, metrics, names, run.batches.progress)


def _next_batch(run: Run, step: int, state: Any) -> tuple[Any, Any]:
    """The batch after `step`. Where it can not be had, what was trained since the last checkpoint is saved first."""
    stands = run.batches.get_state()
    try:
        return next(run.batches)
    except Exception:
        # Of several processes, the others have their batch and would not come to a save.
        if step > 0 and jax.process_count() == 1:
            run.reporter.flush()
            run.batches.set_state(stands)
            run.checkpoints.save(step, state, run.batches, force=True)
            run.checkpoints.wait()
            log.info("step %d is saved", step)
        raise
