"""Online preference learning: the step that asks the model itself for what it learns from."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jaxtyping import Array, Float

from ualm_jax.models.log_probabilities import targets
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.types import Batch
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.policy_gradient import Experience
from ualm_jax.train.rollouts import Asked, Rollout, Rollouts
from ualm_jax.train.step import Frozen, TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class OnlineStep:
    """(state, `Asked`) to (state, metrics): answers, rewards, and `updates` steps of the optimiser on them.

    update: of `make_train_step`. reference: parameters, None where no divergence is wanted.
    """

    update: Callable[..., tuple[TrainState, dict[str, Array]]]
    updates: int
    model: Frozen
    rollouts: Rollouts
    reference: nnx.State | None
    mesh: Mesh
    microbatches: int

    def __call__(self, state: TrainState, asked: Asked) -> tuple[TrainState, dict[str, Any]]:
        after = state.step + 1
        made = self.rollouts.make(self.model.whole(state.params), asked)
        experience = self.experience(state.params, made)
        for update in range(self.updates):
            # What is rounded at random is by the number in the state: no two updates of a run have the same one.
            state = state._replace(step=(after - 1) * self.updates + update)
            state, metrics = self.update(state, experience, self.model.constants)
        # However many updates: a step is a set of answers.
        return state._replace(step=after), metrics | {name: np.float32(value) for name, value in made.metrics.items()}

    def experience(self, params: nnx.State, made: Rollout) -> Experience:
        """Of microbatches [A, B, ...]. params: that the answers were drawn with. Every process has all answers, and
        puts its share of the rows on its devices."""
        count, index = jax.process_count(), jax.process_index()
        rows = jax.tree.map(lambda x: np.split(x, count)[index], (made.batch, made.advantages.values.reshape(-1)))
        batch, advantage = shard_batch(rows, self.mesh, self.microbatches)
        structure, constants, _ = self.model
        reference = self.reference
        if reference is not None:
            reference = _log_probabilities(structure, reference, constants, batch)
        return Experience(batch, advantage, _log_probabilities(structure, params, constants, batch), reference)


def abstract_experience(batch: Batch, mesh: Mesh | AbstractMesh, divergence: bool) -> Experience:
    """Shapes of what is learnt from an abstract batch [A, B, ...]. divergence: from a reference, is wanted."""
    microbatches, rows = batch.tokens.shape[:2]
    sharding = NamedSharding(mesh, spec(None, "batch"))
    each = batch.loss_weights
    advantage = jax.ShapeDtypeStruct((microbatches, rows), np.float32, sharding=sharding)
    return Experience(batch, advantage, each, each if divergence else None)


@functools.partial(jax.jit, static_argnums=0)
def _log_probabilities(
    structure: nnx.GraphDef, params: nnx.State, constants: nnx.State, batch: Batch
) -> Float[Array, "A B T S"]:
    """Log-probabilities of the next tokens of microbatches [A, B, ...]."""

    def one(microbatch: Batch) -> Float[Array, "B T S"]:
        return targets(nnx.merge(structure, params, constants), microbatch).log_probs

    if len(batch.tokens) == 1:  # as in the training step, so that the same numbers come out
        return jax.tree.map(lambda x: x[None], one(jax.tree.map(lambda x: x[0], batch)))
    return jax.lax.map(one, batch)
