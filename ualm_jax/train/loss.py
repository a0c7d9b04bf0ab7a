"""Next-token loss of the streams.

Definition, from the public UALM code (`models/ualm/lm/parallel.py`, `_loss`): stream 0 is a softmax over the
whole vocabulary, streams 1 and up over the merged interval of all codebooks; each token's cross-entropy is
multiplied by its weight, and the sum is divided by the number of positions whose stream-0 weight is not zero.
Here the sum and the divisor are returned apart, so that accumulating or sharding a batch changes nothing.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ualm_jax.models.cross_entropy import cross_entropy
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.types import Batch


class LossSums(NamedTuple):
    """Sums over positions; all of them add up over microbatches and devices.

    loss: weighted cross-entropy. positions: positions with a stream-0 weight.
    correct, counted: per stream, tokens predicted right and tokens with a weight.
    """

    loss: Float[Array, ""]
    positions: Float[Array, ""]
    correct: Float[Array, " S"]
    counted: Float[Array, " S"]

    def mean(self) -> Float[Array, ""]:
        return self.loss / jnp.maximum(self.positions, 1)


def next_token_loss(model: UALM, batch: Batch) -> LossSums:
    """Loss sums of a batch; the first token of a segment is never a target."""
    hidden = model(batch)
    targets = _shift(batch.tokens)
    same_segment = batch.segment_ids == _shift(batch.segment_ids)
    weights = _shift(batch.loss_weights) * same_segment[:, :, None]

    loss, correct = cross_entropy(
        hidden,
        model.text_head[...],
        model.audio_head[...],
        model.stream_bias(hidden.dtype),
        targets,
        model.execution.loss_chunk,
    )
    counted = (weights != 0).astype(jnp.float32)
    return LossSums(
        loss=jnp.sum(loss * weights),
        positions=jnp.sum(counted[:, :, 0]),
        correct=jnp.sum(correct * counted, axis=(0, 1)),
        counted=jnp.sum(counted, axis=(0, 1)),
    )


def _shift(x: Array) -> Array:
    """Each position's next one; zero after the last."""
    # Padded, not concatenated with a slice of one column: from jax 0.11 on, a slice of size 1 loses its sharding.
    return jnp.pad(x[:, 1:], [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2))
