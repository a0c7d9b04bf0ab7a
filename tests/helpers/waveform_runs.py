"""Runs of codecs and enhancers, with all that they go through."""

import dataclasses
from collections.abc import Callable

import jax

from ualm_jax.train.loop import Run, fit


def steps_of(make: Callable[[], Run], mesh: jax.sharding.Mesh) -> list[tuple]:
    """The state and the metrics after every step of the run that `make` gives, on the host; `mesh` is set for it."""
    with jax.set_mesh(mesh):
        run = make()
        seen, step = [], run.step

        def keep(state, batch):
            state, metrics = step(state, batch)
            seen.append((jax.device_get(state), jax.device_get(metrics)))
            return state, metrics

        fit(dataclasses.replace(run, step=keep))
    return seen
