"""Training state, and the one jitted step that moves it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from ualm_jax.models.audio_encoder.encoder import AudioEncoder, encode_audio
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.params import cast_floats
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.types import Batch
from ualm_jax.train.loss import LossSums, next_token_loss
from ualm_jax.train.precision import apply_updates


class TrainState(NamedTuple):
    """Everything a step reads and writes. step: optimiser steps taken."""

    step: Int[Array, ""]
    params: nnx.State
    opt_state: optax.OptState


def init_state(
    architecture: Architecture, execution: Execution, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """A fresh state, every array made in its own sharding on the current mesh."""

    def init() -> TrainState:
        params = nnx.state(UALM(architecture, execution, nnx.Rngs(seed)), nnx.Param)
        return TrainState(jnp.int32(0), params, optimizer.init(params))

    return jax.jit(init)()


def state_from(params: nnx.State, optimizer: optax.GradientTransformation) -> TrainState:
    """A fresh state of parameters that came from elsewhere."""
    return TrainState(jnp.int32(0), params, jax.jit(optimizer.init)(params))


def abstract_state(
    architecture: Architecture, execution: Execution, optimizer: optax.GradientTransformation
) -> TrainState:
    """Shapes, dtypes and shardings of `init_state`, without making an array."""

    def init() -> TrainState:
        params = nnx.state(UALM(architecture, execution, nnx.Rngs(0)), nnx.Param)
        return TrainState(jnp.int32(0), params, optimizer.init(params))

    return jax.eval_shape(init)


def make_train_step(
    structure: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The step (state, batch, encoder), jitted, its state donated.

    Its batch has a leading axis of microbatches, [A, B, ...]. Their loss sums and gradients are added up and
    divided once by the positions of all of them, so that A microbatches equal one batch of A times the rows.
    """

    def loss(params: nnx.State, microbatch: Batch) -> tuple[Array, LossSums]:
        sums = next_token_loss(nnx.merge(structure, params), microbatch)
        return sums.loss, sums

    def gradients(params: nnx.State, microbatch: Batch, encoder: AudioEncoder | None) -> tuple[nnx.State, LossSums]:
        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(params, encode_audio(encoder, microbatch))
        return grads, sums

    def step(
        state: TrainState, batch: Batch, encoder: AudioEncoder | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        def add(total, microbatch):
            grads, sums = gradients(state.params, microbatch, encoder)
            return jax.tree.map(jnp.add, total, (cast_floats(grads, jnp.float32), sums)), None

        if len(batch.tokens) == 1:  # no float32 copy of the gradients is needed
            grads, sums = gradients(state.params, jax.tree.map(lambda leaf: leaf[0], batch), encoder)
        else:
            zero_grads = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), state.params)
            S = batch.tokens.shape[-1]
            zero_sums = LossSums(jnp.float32(0), jnp.float32(0), jnp.zeros(S), jnp.zeros(S))
            (grads, sums), _ = jax.lax.scan(add, (zero_grads, zero_sums), batch)
        positions = jnp.maximum(sums.positions, 1)
        grads = jax.tree.map(lambda grad: grad.astype(jnp.float32) / positions, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = apply_updates(state.params, updates, state.step)
        metrics = {
            "loss": sums.mean(),
            "accuracy": sums.correct / jnp.maximum(sums.counted, 1),
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(params),
            "update_norm": optax.tree.norm(updates),
            "tokens": jnp.sum(batch.segment_ids > 0).astype(jnp.float32),
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(step, donate_argnums=0)


def make_eval_step(structure: nnx.GraphDef) -> Callable[..., LossSums]:
    """(params, batch [B, ...], encoder) to loss sums, jitted."""

    def step(params: nnx.State, batch: Batch, encoder: AudioEncoder | None = None) -> LossSums:
        return next_token_loss(nnx.merge(structure, params), encode_audio(encoder, batch))

    return jax.jit(step)
