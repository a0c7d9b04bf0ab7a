"""Losses of preference learning, each a function of the same numbers of a pair. All arrays are float32 [pairs].

Written with r = log pi - log pi_ref of an answer and h = r(chosen) - r(rejected):

sigmoid   -(1 - e) log s(b h) - e log s(-b h)     DPO, Rafailov et al. 2023, eq. 7; e: label smoothing, cDPO
ipo       (h - 1 / (2 b)) ^ 2                     Azar et al. 2023, eq. 17
hinge     max(0, 1 - b h)                         SLiC-HF, Zhao et al. 2023, eq. 1, with the rewards of DPO
apo_zero  1 - s(b r(chosen)) + s(b r(rejected))   D'Oosterlinck et al. 2024, APO-zero
simpo     as sigmoid, of b (m(chosen) - m(rejected)) - g, m the mean log pi of a position: Meng et al. 2024, eq. 6
orpo      -b log s(l(chosen) - l(rejected)), l = m - log(1 - exp m) the log odds: Hong et al. 2024, eq. 6 and 7
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, NotNegative, OneOf, Positive, check_fields

_SMOOTHED = ("sigmoid", "simpo")
_REFERENCE_FREE = ("simpo", "orpo")


@dataclasses.dataclass(frozen=True)
class PreferenceConfig:
    """What is learnt from pairs.

    reference: folder of what `ualm score` found the reference model to say; None for losses that need none.
    loss: see preference_losses.py; beta: b there; margin: g of simpo; label_smoothing: e of sigmoid and simpo.
    length_normalised: divide an answer's log-probabilities by its positions, for losses that have a reference.
    stream_weights: factors of the streams' log-probabilities, beside the loss weights of their tokens; () for 1 each.
    ce_weight: of the cross-entropy of the chosen answers, by position as in next-token training.
    kl_weight: of a divergence from the reference, exp(d) - 1 - d with d the mean log-ratio of an answer's positions.
    """

    reference: str | None = None
    loss: Annotated[str, OneOf(("sigmoid", "ipo", "hinge", "apo_zero", "simpo", "orpo"))] = "sigmoid"
    beta: Positive = 0.1
    margin: NotNegative = 0.5
    label_smoothing: Annotated[float, Bounds(at_least=0, below=0.5)] = 0.0
    length_normalised: bool = False
    stream_weights: tuple[NotNegative, ...] = ()
    ce_weight: NotNegative = 1.0
    kl_weight: NotNegative = 0.0

    def __post_init__(self):
        check_fields(self, "preference")
        if self.label_smoothing and self.loss not in _SMOOTHED:
            raise UserError(
                f"preference.label_smoothing is {self.label_smoothing:g}, but only {' and '.join(_SMOOTHED)} have one; "
                f"set it to 0 for {self.loss}."
            )
        if self.loss in _REFERENCE_FREE and self.length_normalised:
            raise UserError(f"preference.length_normalised: {self.loss} divides by positions by itself; leave it out.")

    @property
    def needs_reference(self) -> bool:
        return self.loss not in _REFERENCE_FREE or self.kl_weight > 0

    def check(self, streams: int) -> None:
        """Raises UserError unless a run of a model with so many streams can learn from pairs by this."""
        if self.stream_weights and len(self.stream_weights) != streams:
            raise UserError(
                f"preference.stream_weights must be a weight for each of the model's {streams} streams, got "
                f"{len(self.stream_weights)}."
            )
        if self.needs_reference and self.reference is None:
            needs = "kl_weight is" if self.loss in _REFERENCE_FREE else f"the loss {self.loss} is"
            raise UserError(
                f"preference.reference is missing: {needs} of a comparison with a reference model; name the folder "
                "that `ualm score` shall write, or has written."
            )


class Answer(NamedTuple):
    """One side of pairs. log_prob: weighted sum over its tokens. ratio: that less the reference's. positions: learnt
    ones, at least 1."""

    log_prob: Float[Array, "*pairs"]
    ratio: Float[Array, "*pairs"]
    positions: Float[Array, "*pairs"]

    def per_position(self) -> "Answer":
        return Answer(self.log_prob / self.positions, self.ratio / self.positions, self.positions)


def preference_loss(config: PreferenceConfig, chosen: Answer, rejected: Answer) -> Float[Array, "*pairs"]:
    """The loss of every pair."""
    if config.length_normalised or config.loss in _REFERENCE_FREE:
        chosen, rejected = chosen.per_position(), rejected.per_position()
    return _LOSSES[config.loss](config, chosen, rejected)


def rewards(config: PreferenceConfig, chosen: Answer, rejected: Answer) -> tuple[Array, Array]:
    """The reward of each answer: beta times what the loss compares."""
    if config.length_normalised or config.loss in _REFERENCE_FREE:
        chosen, rejected = chosen.per_position(), rejected.per_position()
    if config.loss in _REFERENCE_FREE:
        return config.beta * chosen.log_prob, config.beta * rejected.log_prob
    return config.beta * chosen.ratio, config.beta * rejected.ratio


def divergence(log_ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(d) - 1 - d: where d is log pi - log pi_ref of what pi_ref has sampled, its mean is KL(pi_ref | pi), and no
    sample's is negative (Schulman, Approximating KL Divergence, 2020, k3)."""
    return jnp.expm1(log_ratio) - log_ratio


def _smoothed(config: PreferenceConfig, x: Array) -> Array:
    e = config.label_smoothing
    return -(1 - e) * jax.nn.log_sigmoid(x) - e * jax.nn.log_sigmoid(-x)


def _sigmoid(config: PreferenceConfig, chosen: Answer, rejected: Answer) -> Array:
    return _smoothed(config, config.beta * (chosen.ratio - rejected.ratio))


def _ipo(config: PreferenceConfig, chosen: Answer, rejected: Answer) -> Array:
    return (chosen.ratio - rejected.ratio - 1 / (2 * config.beta)) ** 2


def _hinge(config: PreferenceConfig, chosen: Answer, rejected: Answer) -> Array:
    return jax.nn.relu(1 - config.beta * (chosen.ratio - rejected.ratio))


def _apo_zero(config: PreferenceConfig, chosen: Answer, rejected: Answer) -> Array:
    return jax.nn.sigmoid(-config.beta * chosen.ratio) + jax.nn.sigmoid(config.beta * rejected.ratio)


def _simpo(config: PreferenceConfig, chosen: Answer, rejected: Answer) -> Array:
    return _smoothed(config, config.beta * (chosen.log_prob - rejected.log_prob) - config.margin)


def _orpo(config: PreferenceConfig, chosen: Answer, rejected: Answer) -> Array:
    return -config.beta * jax.nn.log_sigmoid(_log_odds(chosen.log_prob) - _log_odds(rejected.log_prob))


def _log_odds(log_prob: Array) -> Array:
    below_one = jnp.minimum(log_prob, -1e-6)  # the odds of what is certain are infinite
    return log_prob - jnp.log(-jnp.expm1(below_one))


_LOSSES: dict[str, Callable[[PreferenceConfig, Answer, Answer], Array]] = {
    "sigmoid": _sigmoid,
    "ipo": _ipo,
    "hinge": _hinge,
    "apo_zero": _apo_zero,
    "simpo": _simpo,
    "orpo": _orpo,
}
