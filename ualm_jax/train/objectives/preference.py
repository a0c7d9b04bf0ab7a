"""Learning which of two answers is better, from pairs that stand in one row as two segments beside each other."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from ualm_jax.models.log_probabilities import Sequences, over_segments, sequences, target_weights, targets
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.types import Batch
from ualm_jax.train.objectives import Mean, Sums
from ualm_jax.train.objectives.next_token import work_of
from ualm_jax.train.objectives.preference_losses import (
    Answer,
    PreferenceConfig,
    divergence,
    preference_loss,
    rewards,
)


@dataclasses.dataclass(frozen=True)
class Preference:
    """Minimises preference + ce_weight x ce + kl_weight x kl. A batch without `reference` has no pairs: ValueError.

    preference: the loss of a pair (preference_losses.py), by pairs. ce: cross-entropy of the chosen answers, by learnt
    positions. kl: `divergence` of the mean log-ratio of an answer's positions, by answers.
    margin, accuracy, reward/chosen, reward/rejected: of rewards, by pairs; accuracy: where the chosen one's is higher.
    drift: log pi - log pi_ref of a position of chosen answers; a run where it falls unlearns what it shall prefer.
    log_prob/chosen, log_prob/rejected: of a position. kl/stream: `divergence` of the weighted mean log-ratio of a
    stream's tokens, by answers that have some. pairs: how many. kl, kl/stream and drift need a reference.
    """

    config: PreferenceConfig

    @property
    def weights(self) -> Mapping[str, float]:
        found = {"preference": 1.0, "ce": self.config.ce_weight, "kl": self.config.kl_weight}
        return {name: weight for name, weight in found.items() if weight}

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        weights = target_weights(batch)[:, :, :1]
        positions = over_segments(batch, (weights != 0).astype(jnp.float32), 2 * _pairs(batch))[:, :, 0]
        pairs = jnp.sum(_live(batch))
        found = {"preference": pairs, "ce": jnp.sum(positions[:, 0::2]), "kl": 2 * pairs}
        return {name: found[name] for name in self.weights}

    def __call__(self, model: UALM, batch: Batch) -> Sums:
        config, live = self.config, _live(batch)
        found = _by_pair(sequences(batch, targets(model, batch), 2 * _pairs(batch)))
        difference = found.total - batch.reference  # by stream, so that equal sums leave exactly 0
        scale = jnp.array(config.stream_weights or [1.0] * found.total.shape[-1], jnp.float32)
        positions = found.count[..., 0]
        # An empty place gets numbers of which no loss makes NaN, and weight 0.
        log_prob = jnp.where(live[..., None] > 0, jnp.sum(found.total * scale, axis=-1), -1.0)
        answers = Answer(log_prob, jnp.sum(difference * scale, axis=-1), jnp.maximum(positions, 1))
        chosen, rejected = (Answer(*(_of(side, x) for x in answers)) for side in (0, 1))
        worth, less = rewards(config, chosen, rejected)

        def mean(values: Array) -> Mean:
            return Mean(jnp.sum(values * live), jnp.sum(live))

        def per_position(values: Array, side: int) -> Mean:
            return Mean(jnp.sum(values * live), jnp.sum(_of(side, positions)))

        sums = {
            "preference": mean(preference_loss(config, chosen, rejected)),
            "ce": per_position(-_of(0, jnp.sum(found.total, axis=-1)), 0),
            "margin": mean(worth - less),
            "accuracy": mean((worth > less).astype(jnp.float32)),
            "reward/chosen": mean(worth),
            "reward/rejected": mean(less),
            "log_prob/chosen": per_position(chosen.log_prob, 0),
            "log_prob/rejected": per_position(rejected.log_prob, 1),
            "pairs": jnp.sum(live),
        } | work_of(batch)
        if not config.needs_reference:
            return sums
        some = (found.count > 0).astype(jnp.float32)
        by_stream = divergence(difference / jnp.where(some > 0, found.weight, 1))
        return sums | {
            "kl": Mean(jnp.sum(divergence(answers.ratio / answers.positions) * live[..., None]), 2 * jnp.sum(live)),
            "kl/stream": Mean(jnp.sum(by_stream * some, axis=(0, 1, 2)), jnp.sum(some, axis=(0, 1, 2))),
            "drift": per_position(chosen.ratio, 0),
        }


def _pairs(batch: Batch) -> int:
    if batch.reference is None:
        raise ValueError("the batch holds no pairs")
    return batch.reference.shape[1]


def _live(batch: Batch) -> Float[Array, "B P"]:
    """1 where there is a pair, 0 elsewhere."""
    last = 2 * jnp.arange(1, _pairs(batch) + 1)
    return (jnp.max(batch.segment_ids, axis=1)[:, None] >= last).astype(jnp.float32)


def _of(side: int, values: Float[Array, "B P 2"]) -> Float[Array, "B P"]:
    """Of the chosen answers (0) or of the rejected ones (1), all finite. Not a slice: from jax 0.11 on, one of size 1
    loses its sharding.
    """
    return jnp.sum(values * jnp.eye(2)[side], axis=-1)


def _by_pair(found: Sequences) -> Sequences:
    return Sequences(*(x.reshape(x.shape[0], -1, 2, x.shape[-1]) for x in found))
