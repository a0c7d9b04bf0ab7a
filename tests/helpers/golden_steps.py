"""A small training step on golden conversations."""

import dataclasses

import jax
import numpy as np

from helpers import golden_model
from ualm_jax.train.optimizer import OptimizerConfig

EXECUTION = dataclasses.replace(golden_model.EXECUTION, loss_chunk=64)

# A large eps keeps Adam from blowing rounding of vanishing gradients up to whole steps.
OPTIMIZER = OptimizerConfig(peak_lr=1e-2, warmup_steps=2, decay_steps=10, eps=1e-3)


def rows(golden):
    """Eight rows of golden conversations, on the host."""
    batch = jax.tree.map(np.asarray, golden_model.batch_of(golden, "batch_of_four"))
    return jax.tree.map(lambda x: np.concatenate([x, x[::-1]]), batch)
