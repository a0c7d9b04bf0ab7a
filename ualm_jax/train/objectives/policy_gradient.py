"""Learning from rewards of a model's own answers: the clipped policy gradient of GRPO.

Of every token that was drawn, with r = pi / pi_old its probability now by that when it was drawn, A the advantage of
its answer, w its loss weight (text 1, each of the S tokens of an audio frame 1 / S), and d = log pi_ref - log pi:

    - w min(r A, clip(r, 1 - e, 1 + e) A) + kl_weight w (exp(d) - 1 - d)

summed over all tokens and divided by the positions of all answers that teach something, so that each counts the same
however long its answer is. Shao et al., DeepSeekMath, 2024, eq. 3 and 4; the division is that of Yu et al., DAPO,
2025, eq. 12.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, NotNegative, OneOf, Positive, check_fields
from ualm_jax.models.log_probabilities import target_weights, targets
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.types import Batch
from ualm_jax.train.objectives import Mean, Sums
from ualm_jax.train.objectives.next_token import work_of
from ualm_jax.train.objectives.preference_losses import divergence

_LEAST_SPREAD = 1e-4  # that rewards are divided by: a group that differs by rounding alone must not decide anything


@dataclasses.dataclass(frozen=True)
class GrpoConfig:
    """What is learnt from rewards of the model's own answers.

    prompts: a file with a prompt on each line (generate/jobs_items.py); texts alone.
    scorer: the reward, see generate/scorers.py: "soundscript", module:function or file.py:function.
    group_size: answers to each prompt; a step has data.batch_size answers, each in a row of its own.
    modality, seconds, max_tokens: of the answers: "audio", "speech" or "text"; seconds: exactly so long, or as the
        model ends it; max_tokens: of a text. What data.seq_len has no room for is cut off.
    temperature, top_k, cfg_scale: how they are drawn. With 1, 0 and 1 they are the model's own, which the gradient
        assumes; with others it is that of answers a little other than those that are trained.
    slots: answers that are made at a time.
    updates: optimiser steps on the answers of a step; clip: e, which matters from the second on.
    kl_weight: of the divergence from the model that the run began with; 0 needs no second copy of the parameters.
    stream_weights: factors of the streams' tokens, beside their loss weights; () for 1 each.
    """

    prompts: str | None = None
    scorer: str = "soundscript"
    group_size: Annotated[int, Bounds(at_least=2)] = 8
    modality: Annotated[str, OneOf(("audio", "speech", "text"))] = "audio"
    seconds: Annotated[float, Bounds(above=0, at_most=600)] | None = None
    max_tokens: Count = 256
    temperature: Positive = 1.0
    top_k: Natural = 0
    cfg_scale: NotNegative = 1.0
    slots: Count = 8
    updates: Count = 1
    clip: Annotated[float, Bounds(above=0, below=1)] = 0.2
    kl_weight: NotNegative = 0.04
    stream_weights: tuple[NotNegative, ...] = ()

    def __post_init__(self):
        check_fields(self, "grpo")
        if self.scorer == "likelihood":
            raise UserError(
                "grpo.scorer = 'likelihood' would reward a model for what it says anyway; name a scorer that listens."
            )

    def check(self, streams: int, rows: int) -> None:
        """Raises UserError unless a model with so many streams can learn from so many answers a step by this."""
        if self.prompts is None:
            raise UserError("grpo.prompts is missing: the file of prompts to answer, one on each line.")
        if self.stream_weights and len(self.stream_weights) != streams:
            raise UserError(
                f"grpo.stream_weights must be a weight for each of the model's {streams} streams, got "
                f"{len(self.stream_weights)}."
            )
        if rows % self.group_size:
            raise UserError(
                f"data.batch_size ({rows}), the answers of a step, must be a multiple of grpo.group_size "
                f"({self.group_size})."
            )


class Experience(NamedTuple):
    """Answers with what they are worth; a pytree of numpy or JAX arrays.

    batch: an answer in each row, with loss weights for what was drawn, 0 throughout for answers that teach nothing.
    advantage: of each row. old, reference: log-probabilities of the next tokens as they were drawn, and under the
    reference model (`log_probabilities.Targets`); None where no divergence is wanted.
    """

    batch: Batch
    advantage: Float[Array, " B"]
    old: Float[Array, "B T S"]
    reference: Float[Array, "B T S"] | None = None


class Advantages(NamedTuple):
    """values: [G, N], 0 for answers that teach nothing. used: those that teach something. equal: groups whose rewards
    are all the same, or of which fewer than two are known."""

    values: Float32[np.ndarray, "G N"]
    used: Bool[np.ndarray, "G N"]
    equal: Bool[np.ndarray, " G"]


def advantages(rewards: Float64[np.ndarray, "G N"]) -> Advantages:
    """(r - mean) / (standard deviation + 1e-4) within each group of answers to one prompt.

    rewards: NaN where there is none; such an answer has no part in its group.
    """
    known = ~np.isnan(rewards)
    lowest, highest = (
        found(np.where(known, rewards, fill), axis=1) for found, fill in ((np.min, np.inf), (np.max, -np.inf))
    )
    equal = ~(highest > lowest)
    used = known & ~equal[:, None]
    count = np.maximum(used.sum(axis=1, keepdims=True), 1)
    centred = np.where(used, rewards, 0)
    centred = np.where(used, centred - centred.sum(axis=1, keepdims=True) / count, 0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    return Advantages((centred / (spread + _LEAST_SPREAD)).astype(np.float32), used, equal)


@dataclasses.dataclass(frozen=True)
class PolicyGradient:
    """Minimises policy + kl_weight x kl of an `Experience`; both by drawn positions of answers that teach something.

    clipped: tokens whose ratio is outside of the bounds on the side that the gradient would leave further.
    log_prob: of a position. kl/stream: by the stream's tokens; they and kl need a reference.
    """

    config: GrpoConfig

    @property
    def weights(self) -> Mapping[str, float]:
        return {"policy": 1.0} | ({"kl": self.config.kl_weight} if self.config.kl_weight else {})

    def counts(self, experience: Experience) -> dict[str, Float[Array, ""]]:
        positions = jnp.sum((target_weights(experience.batch)[:, :, 0] != 0).astype(jnp.float32))
        return {name: positions for name in self.weights}

    def __call__(self, model: UALM, experience: Experience) -> Sums:
        config, batch = self.config, experience.batch
        found = targets(model, batch)
        scale = jnp.array(config.stream_weights or [1.0] * found.weights.shape[-1], jnp.float32)
        drawn = (found.weights != 0).astype(jnp.float32)
        positions = jnp.sum(drawn[:, :, 0])
        weights = found.weights * scale
        # What was not drawn may have any ratio, which no exponential must see.
        ratio = jnp.exp(jnp.where(drawn > 0, found.log_probs - experience.old, 0))
        advantage = experience.advantage[:, None, None]
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - config.clip, 1 + config.clip) * advantage)
        clipped = jnp.where(advantage > 0, ratio > 1 + config.clip, ratio < 1 - config.clip) & (advantage != 0)
        sums = {
            "policy": Mean(-jnp.sum(weights * gain), positions),
            "clipped": Mean(jnp.sum(clipped * drawn), jnp.sum(drawn)),
            "log_prob": Mean(jnp.sum(weights * found.log_probs), positions),
        } | work_of(batch)
        if experience.reference is None:
            return sums
        apart = divergence(jnp.where(drawn > 0, experience.reference - found.log_probs, 0))
        by_stream = Mean(jnp.sum(apart * drawn, axis=(0, 1)), jnp.sum(drawn, axis=(0, 1)))
        return sums | {"kl": Mean(jnp.sum(weights * apart), positions), "kl/stream": by_stream}
