"""Training state, and the one jitted step that moves it. Any model, any objective, any batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.models.params import cast_floats
from ualm_jax.models.ualm import UALM
from ualm_jax.train.objectives import Objective, Sums, denominator, numerator, values
from ualm_jax.train.precision import apply_updates
from ualm_jax.train.trainable import EVERYTHING, Trainable

CONSTANTS = nnx.State({})
"""For a model whose arrays are all parameters."""


class TrainState(NamedTuple):
    """Everything a step reads and writes. step: optimiser steps taken."""

    step: Int[Array, ""]
    params: nnx.State
    opt_state: optax.OptState


class Frozen(NamedTuple):
    """What a state lacks to be a UALM.

    structure: of the model with its encoder. constants: arrays of an encoder that is not trained, which no state
    holds; empty for one that is.
    """

    structure: nnx.GraphDef
    constants: nnx.State
    front_end: MelFrontEnd | None

    def whole(self, params: nnx.State) -> UALM:
        return nnx.merge(self.structure, params, self.constants)


def init_state(make_model: Callable[[], nnx.Module], optimizer: optax.GradientTransformation) -> TrainState:
    """A fresh state, every array made in its own sharding on the current mesh."""

    def make() -> TrainState:
        params = nnx.state(make_model(), nnx.Param)
        return TrainState(jnp.int32(0), params, optimizer.init(params))

    return jax.jit(make)()


def state_from(params: nnx.State, optimizer: optax.GradientTransformation) -> TrainState:
    """A fresh state of parameters that came from elsewhere."""
    return TrainState(jnp.int32(0), params, jax.jit(optimizer.init)(params))


def make_train_step(
    structure: nnx.GraphDef,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    trainable: Trainable = EVERYTHING,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The step (state, batch, constants) to (state, metrics), jitted, its state donated.

    structure: of the model, `nnx.merge(structure, params, constants)`. constants: arrays of it that no state holds.
    The batch is a pytree whose leaves have a leading axis of microbatches, [A, B, ...]. Their sums and gradients are
    added up and divided once by the count of all of them, so that A microbatches equal one batch of A times the rows,
    however many means the loss is made of.
    trainable: what is trained, for which `optimizer` was made, too (`trainable.partial`).
    """

    def step(state: TrainState, batch: Any, constants: nnx.State = CONSTANTS) -> tuple[TrainState, dict[str, Array]]:
        counts = jax.tree.map(lambda count: jnp.sum(count, axis=0), jax.lax.map(objective.counts, batch))

        trained = trainable.take(state.params)

        def loss(trained: nnx.State, microbatch: Any) -> tuple[Array, Sums]:
            params = trainable.put(trained, state.params)
            sums = objective(nnx.merge(structure, params, constants), microbatch)
            return numerator(objective, sums, counts), sums

        def gradients(microbatch: Any) -> tuple[nnx.State, Sums]:
            return jax.grad(loss, has_aux=True)(trained, microbatch)

        def add(total, microbatch):
            grads, sums = gradients(microbatch)
            return jax.tree.map(jnp.add, total, (cast_floats(grads, jnp.float32), sums)), None

        first = jax.tree.map(lambda leaf: leaf[0], batch)
        if len(jax.tree.leaves(batch)[0]) == 1:  # no float32 copy of the gradients is needed
            grads, sums = gradients(first)
        else:
            zero_grads = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), trained)
            zero_sums = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(gradients, first)[1])
            (grads, sums), _ = jax.lax.scan(add, (zero_grads, zero_sums), batch)
        count = denominator(objective, counts)
        grads = jax.tree.map(lambda grad: grad.astype(jnp.float32) / count, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        moved = apply_updates(trained, updates, state.step)
        params = trainable.put(moved, state.params)
        # Read once more for their norm: fused with what moves them, on a GPU two norms would copy all parameters first.
        written = jax.lax.optimization_barrier(moved)
        metrics = values(objective, sums) | {
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(written),
            "update_norm": optax.tree.norm(updates),
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(step, donate_argnums=0)


def make_eval_step(structure: nnx.GraphDef, objective: Objective) -> Callable[..., Sums]:
    """(params, batch of microbatches [A, B, ...], constants) to the objective's sums, jitted."""

    def step(params: nnx.State, batch: Any, constants: nnx.State = CONSTANTS) -> Sums:
        model = nnx.merge(structure, params, constants)
        each = jax.lax.map(lambda microbatch: objective(model, microbatch), batch)
        return jax.tree.map(lambda sums: jnp.sum(sums, axis=0), each)

    return jax.jit(step)
