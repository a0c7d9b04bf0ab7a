"""How likely a model finds the tokens of a batch: what the loss, preference learning, scores and judges all look at."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ualm_jax.models.cross_entropy import cross_entropy
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.types import Batch


class Targets(NamedTuple):
    """What the model says of every position's next tokens.

    log_probs: natural logarithm, float32. correct: whether no token is likelier. weights: as the loss weighs them, 0
    where the next position belongs to another segment.
    """

    log_probs: Float[Array, "B T S"]
    correct: Bool[Array, "B T S"]
    weights: Float[Array, "B T S"]


def targets(model: UALM, batch: Batch) -> Targets:
    """The targets of `batch`, without an array of the size [positions, vocabulary] (`cross_entropy`)."""
    hidden = model(batch)
    loss, correct = cross_entropy(
        hidden,
        model.text_head[...],
        model.audio_head[...],
        model.stream_bias(hidden.dtype),
        _next(batch.tokens),
        model.execution.loss_chunk,
    )
    return Targets(-loss, correct, target_weights(batch))


def target_weights(batch: Batch) -> Float[Array, "B T S"]:
    """`Targets.weights`, which follow from the batch alone."""
    same_segment = batch.segment_ids == _next(batch.segment_ids)
    return _next(batch.loss_weights) * same_segment[:, :, None]


class Sequences(NamedTuple):
    """Sums over the learnt tokens of every segment, for each row and stream; float32, 0 for segments that are not
    there.

    total: sum of log-probabilities times weights. weight: sum of the weights. count: number of tokens.
    """

    total: Float[Array, "B N S"]
    weight: Float[Array, "B N S"]
    count: Float[Array, "B N S"]


def sequences(batch: Batch, found: Targets, number: int) -> Sequences:
    """Sums over segments 1 to `number` of each row."""
    counted = (found.weights != 0).astype(jnp.float32)
    summed = (found.log_probs * found.weights, found.weights, counted)
    return Sequences(*(over_segments(batch, values, number) for values in summed))


def over_segments(batch: Batch, values: Float[Array, "B T S"], number: int) -> Float[Array, "B N S"]:
    """Sums of the positions of segments 1 to `number` of each row."""
    segments = jnp.arange(1, number + 1, dtype=batch.segment_ids.dtype)
    member = (batch.segment_ids[:, :, None] == segments).astype(jnp.float32)
    # A product, not a scatter: its order of summation, and so its result, is the same every time.
    return jnp.einsum("btn,bts->bns", member, values, precision=jax.lax.Precision.HIGHEST)


def _next(x: Array) -> Array:
    """Each position's next one; zero after the last."""
    # Padded, not concatenated with a slice of one column: from jax 0.11 on, a slice of size 1 loses its sharding.
    return jnp.pad(x[:, 1:], [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2))
