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

from ualm_jax.models.log_probabilities import target_weights, targets
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.types import Batch
from ualm_jax.train.objectives import Mean, Sums


@dataclasses.dataclass(frozen=True)
class NextToken:
    """The first token of a segment is never a target.

    loss: weighted cross-entropy, by positions with a stream-0 weight.
    accuracy/stream: [S] tokens predicted right, by tokens with a weight.
    tokens, attended: see `work_of`.
    """

    weights: ClassVar[Mapping[str, float]] = {"loss": 1.0}

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        return {"loss": jnp.sum((target_weights(batch)[:, :, 0] != 0).astype(jnp.float32))}

    def __call__(self, model: UALM, batch: Batch) -> Sums:
        found = targets(model, batch)
        counted = (found.weights != 0).astype(jnp.float32)
        return {
            "loss": Mean(-jnp.sum(found.log_probs * found.weights), jnp.sum(counted[:, :, 0])),
            "accuracy/stream": Mean(jnp.sum(found.correct * counted, axis=(0, 1)), jnp.sum(counted, axis=(0, 1))),
        } | work_of(batch)


next_token = NextToken()


def work_of(batch: Batch) -> Sums:
    """tokens: positions that are no padding. attended: keys that their queries see, one layer and head, so that the
    work of attention inside documents is known."""
    real = batch.segment_ids > 0
    return {
        "tokens": jnp.sum(real).astype(jnp.float32),
        "attended": jnp.sum((batch.positions + 1) * real, dtype=jnp.float32),
    }
