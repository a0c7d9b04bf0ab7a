"""A small training step on golden conversations."""

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx

from helpers import golden_model
from ualm_jax.models.config import Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.train.optimizer import OptimizerConfig
from ualm_jax.train.step import TrainState, state_from

EXECUTION = dataclasses.replace(golden_model.EXECUTION, loss_chunk=64)

# A large eps keeps Adam from blowing rounding of vanishing gradients up to whole steps.
OPTIMIZER = OptimizerConfig(peak_lr=1e-2, warmup_steps=2, decay_steps=10, eps=1e-3)


def rows(golden):
    """Eight rows of golden conversations, on the host."""
    batch = jax.tree.map(np.asarray, golden_model.batch_of(golden, "batch_of_four"))
    return jax.tree.map(lambda x: np.concatenate([x, x[::-1]]), batch)


@functools.cache
def _maker(execution: Execution):
    return lambda: UALM(golden_model.ARCHITECTURE, execution, nnx.Rngs(0))


def fresh_state(execution: Execution, optimizer) -> TrainState:
    """Random parameters on the current mesh; the program that makes them is traced once for each mesh."""
    return state_from(nnx.state(jax.jit(_maker(execution))(), nnx.Param), optimizer)
