"""Next-token loss of the streams.

Definition, from the public UALM code (`models/ualm/lm/parallel.py`, `_loss`): stream 0 is a softmax over the
whole vocabulary, streams 1 and up over the merged interval of all codebooks; each token's cross-entropy is
multiplied by its weight, and the sum is divided by the number of positions whose stream-0 weight is not zero.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ualm_jax.models.cross_entropy import cross_entropy
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.types import Batch
from ualm_jax.train.objectives import Mean, Sums


@dataclasses.dataclass(frozen=True)
class NextToken:
    """The first token of a segment is never a target.

    loss: weighted cross-entropy, by positions with a stream-0 weight.
    accuracy/stream: [S] tokens predicted right, by tokens with a weight.
    tokens: positions that are no padding. attended: keys that their queries see, one layer and head, so that the
        work of attention inside documents is known.
    """

    weights: ClassVar[Mapping[str, float]] = {"loss": 1.0}

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        return {"loss": jnp.sum((_target_weights(batch)[:, :, 0] != 0).astype(jnp.float32))}

    def __call__(self, model: UALM, batch: Batch) -> Sums:
        hidden = model(batch)
        weights = _target_weights(batch)
        loss, correct = cross_entropy(
            hidden,
            model.text_head[...],
            model.audio_head[...],
            model.stream_bias(hidden.dtype),
            _shift(batch.tokens),
            model.execution.loss_chunk,
        )
        counted = (weights != 0).astype(jnp.float32)
        real = batch.segment_ids > 0
        return {
            "loss": Mean(jnp.sum(loss * weights), jnp.sum(counted[:, :, 0])),
            "accuracy/stream": Mean(jnp.sum(correct * counted, axis=(0, 1)), jnp.sum(counted, axis=(0, 1))),
            "tokens": jnp.sum(real).astype(jnp.float32),
            "attended": jnp.sum((batch.positions + 1) * real, dtype=jnp.float32),
        }


next_token = NextToken()


def _target_weights(batch: Batch) -> Float[Array, "B T S"]:
    """What the loss of each position's next tokens weighs."""
    same_segment = batch.segment_ids == _shift(batch.segment_ids)
    return _shift(batch.loss_weights) * same_segment[:, :, None]


def _shift(x: Array) -> Array:
    """Each position's next one; zero after the last."""
    # Padded, not concatenated with a slice of one column: from jax 0.11 on, a slice of size 1 loses its sharding.
    return jnp.pad(x[:, 1:], [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2))
