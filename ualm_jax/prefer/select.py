"""From scored answers to pairs: which of a prompt's answers is chosen, which rejected, and why others are neither."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from ualm_jax.errors import UserError
from ualm_jax.fields import Count, NotNegative, OneOf, check_fields

REASONS = {
    "failed": "no answer was made",
    "no score": "a scorer gave no number",
    "one answer": "the prompt has no two answers with a score",
    "equal": "chosen and rejected hold the same tokens",
    "below": "the chosen one is below a threshold",
    "above": "the rejected one is above a threshold",
    "too close": "chosen and rejected are closer than the margin",
}
"""Why a prompt, or an answer, gives no pair."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """How answers become pairs.

    combine: of several scorers, "sum" adds their weighted scores, "rank" their weighted ranks among the answers of a
    prompt, from 0 for the worst to 1 for the best. weights: by scorer, 1 for those not named.
    pairs: of each prompt at most: the best with the worst answer, the second best with the second worst, and so on.
    margin: least difference of the combined scores. chosen_at_least, rejected_at_most: bounds of single scores.
    """

    combine: Annotated[str, OneOf(("sum", "rank"))] = "sum"
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    pairs: Count = 1
    margin: NotNegative = 0.0
    chosen_at_least: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rejected_at_most: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_fields(self, "prefer")

    def check(self, scorers: Sequence[str]) -> None:
        """Raises UserError for a bound or a weight of a scorer that is not there."""
        for option in ("weights", "chosen_at_least", "rejected_at_most"):
            for name in getattr(self, option):
                if name not in scorers:
                    raise UserError(
                        f"{option.replace('_', ' ')}: there is no scorer {name!r} here, only {', '.join(scorers)}."
                    )


class Pair(NamedTuple):
    """Places of a prompt's answers, and the combined scores."""

    chosen: int
    rejected: int
    scores: tuple[float, float]


class Chosen(NamedTuple):
    """What became of a prompt.

    pairs: the best first. winner: the best answer, if it is good enough to learn from. dropped: for each pair that was
    not made, and each answer without a score, the reason (REASONS).
    """

    pairs: tuple[Pair, ...]
    winner: int | None
    dropped: tuple[str, ...]


def combined(scores: Mapping[str, Sequence[float | None]], selection: Selection) -> Float[np.ndarray, "N"]:
    """One number for each answer of a prompt, NaN for those that a scorer gave none."""
    values = np.array([[np.nan if value is None else value for value in scores[name]] for name in scores], np.float64)
    weights = np.array([selection.weights.get(name, 1.0) for name in scores])
    scored = np.isfinite(values).all(axis=0)
    found = np.full(values.shape[1], np.nan)
    if selection.combine == "rank" and scored.any():
        ranks = scipy.stats.rankdata(values[:, scored], axis=1) - 1
        found[scored] = weights @ (ranks / max(scored.sum() - 1, 1))
    elif scored.any():
        found[scored] = weights @ values[:, scored]
    return found


def choose(
    scores: Mapping[str, Sequence[float | None]], contents: Sequence[np.ndarray], selection: Selection
) -> Chosen:
    """Pairs of one prompt's answers. contents: their tokens."""
    total = combined(scores, selection)
    order = [int(place) for place in np.argsort(-total, kind="stable") if np.isfinite(total[place])]
    dropped = ["no score"] * (len(contents) - len(order))
    pairs = []
    winner = order[0] if order and not _below(scores, order[0], selection) else None
    if len(order) < 2:
        dropped.append("one answer")
    for rank in range(min(selection.pairs, len(order) // 2)):
        chosen, rejected = order[rank], order[-1 - rank]
        reason = None
        if np.array_equal(contents[chosen], contents[rejected]):
            reason = "equal"
        elif _below(scores, chosen, selection):
            reason = "below"
        elif any(scores[name][rejected] > bound for name, bound in selection.rejected_at_most.items()):
            reason = "above"
        elif not total[chosen] - total[rejected] > 0 or total[chosen] - total[rejected] < selection.margin:
            reason = "too close"
        if reason is None:
            pairs.append(Pair(chosen, rejected, (float(total[chosen]), float(total[rejected]))))
        else:
            dropped.append(reason)
    return Chosen(tuple(pairs), winner, tuple(dropped))


def _below(scores: Mapping[str, Sequence[float | None]], place: int, selection: Selection) -> bool:
    return any(scores[name][place] < bound for name, bound in selection.chosen_at_least.items())
