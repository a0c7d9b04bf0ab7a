"""Next-token loss of the streams, in time chunks so that [T, V] logits never exist whole.

Definition, from the public UALM code (`models/ualm/lm/parallel.py`, `_loss`): stream 0 is a softmax over the
whole vocabulary, streams 1 and up over the merged interval of all codebooks; each token's cross-entropy is
multiplied by its weight, and the sum is divided by the number of positions whose stream-0 weight is not zero.
Here the sum and the divisor are returned apart, so that accumulating or sharding a batch changes nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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

    chunk = min(model.config.loss_chunk, hidden.shape[1])
    padding = -hidden.shape[1] % chunk
    chunks = tuple(_split_time(array, chunk, padding) for array in (hidden, targets, weights))

    # Logits are recomputed in the backward pass: keeping them is what this function exists to avoid.
    @jax.checkpoint
    def chunk_sums(hidden, targets, weights):
        return _chunk_sums(model, hidden, targets, weights)

    def step(sums, chunk):
        return jax.tree.map(jnp.add, sums, chunk_sums(*chunk)), None

    S = targets.shape[-1]
    zero = LossSums(jnp.float32(0), jnp.float32(0), jnp.zeros(S), jnp.zeros(S))
    sums, _ = jax.lax.scan(step, zero, chunks)
    return sums


def _shift(x: Array) -> Array:
    """Each position's next one; zero after the last."""
    return jnp.concatenate([x[:, 1:], jnp.zeros_like(x[:, :1])], axis=1)


def _split_time(x: Array, chunk: int, padding: int) -> Array:
    """[B, T, ...] as [T / chunk, B, chunk, ...]; the padding has weight 0."""
    x = jnp.pad(x, ((0, 0), (0, padding)) + ((0, 0),) * (x.ndim - 2))
    x = x.reshape(x.shape[0], -1, chunk, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)


def _chunk_sums(
    model: UALM, hidden: Float[Array, "B C D"], targets: Int[Array, "B C S"], weights: Float[Array, "B C S"]
) -> LossSums:
    vocabulary = model.config.vocabulary
    float32 = dict(preferred_element_type=jnp.float32)
    text_head = model.text_head.astype(hidden.dtype)
    audio_head = model.audio_head.astype(hidden.dtype)

    text_logits = jnp.einsum("bcd,dv->bcv", hidden, text_head, **float32)
    audio_logits = jnp.einsum("bcd,dqv->bcqv", hidden, audio_head, **float32)
    first, first_correct = _cross_entropy(
        [(text_logits, targets[:, :, 0]), (audio_logits, targets[:, :, 0] - vocabulary.audio_start)]
    )

    states = model.stream_states(hidden)
    logits = jnp.einsum("bcsd,dqv->bcsqv", states, audio_head, **float32)
    rest, rest_correct = _cross_entropy([(logits, targets[:, :, 1:] - vocabulary.audio_start)])

    loss = jnp.concatenate([first[:, :, None], rest], axis=2)
    correct = jnp.concatenate([first_correct[:, :, None], rest_correct], axis=2)
    counted = (weights != 0).astype(jnp.float32)
    return LossSums(
        loss=jnp.sum(loss * weights),
        positions=jnp.sum(counted[:, :, 0]),
        correct=jnp.sum(correct * counted, axis=(0, 1)),
        counted=jnp.sum(counted, axis=(0, 1)),
    )


def _cross_entropy(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Cross-entropy and whether the target scores highest, of one softmax over several groups of logits.

    parts: (logits [*target, ...vocabulary axes], target ids counted from the group's first logit); a target
    outside a group lies in another. The groups stay apart, and so keep their own sharding.
    """
    lse, top, picked = [], [], []
    for logits, target in parts:
        axes = tuple(range(target.ndim, logits.ndim))
        shape = logits.shape[target.ndim :]
        lse.append(jax.nn.logsumexp(logits, axis=axes))
        top.append(jnp.max(logits, axis=axes))
        # A comparison with every id instead of a gather: the vocabulary may be split over devices.
        ids = jnp.arange(_size(shape), dtype=target.dtype).reshape(shape)
        hit = ids == jnp.expand_dims(target, axes)
        picked.append(jnp.sum(jnp.where(hit, logits, 0.0), axis=axes))
    target_logit = sum(picked)
    total = lse[0] if len(lse) == 1 else jnp.logaddexp(*lse)
    best = top[0] if len(top) == 1 else jnp.maximum(*top)
    return total - target_logit, target_logit >= best


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
