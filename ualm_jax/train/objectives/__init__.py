"""What training minimises and measures, as sums and counts: how a batch is cut into pieces then changes nothing."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float


class Mean(NamedTuple):
    """A mean in its two parts, which add up over microbatches, devices and batches.

    count: what the total is divided by, 0 or at least 1.
    """

    total: Float[Array, "*shape"]
    count: Float[Array, "*shape"]

    def value(self) -> Float[Array, "*shape"]:
        return self.total / jnp.maximum(self.count, 1)


Sums = dict[str, Mean | Array]
"""By name: a `Mean`, or a plain sum. A vector under `name` is reported as `name_0`, `name_1`, ..."""


@runtime_checkable
class Objective(Protocol):
    """What is minimised: the sum over `weights` of weight x mean, by name, and what is measured beside it.

    Called with a model and a batch, it gives the sums of the batch's rows, whatever rows stand beside each other; the
    means that are minimised are scalars. A pure function, as `counts` is.
    """

    weights: Mapping[str, float]

    def counts(self, batch: Any) -> Mapping[str, Float[Array, ""]]:
        """The counts of the means that are minimised, which follow from the batch alone.

        They are needed before any gradient: each mean is divided by its count in the whole step, also where a step is
        cut into microbatches.
        """

    def __call__(self, model: Any, batch: Any) -> Sums: ...


def numerator(objective: Objective, sums: Sums, counts: Mapping[str, Array]) -> Float[Array, ""]:
    """A sum over rows whose gradient, divided by `denominator`, is that of the loss.

    counts: of the whole step. Every mean is brought to the denominator of the first, so that a loss of a single mean
    is its plain total, and what adds up over microbatches is never divided before the end.
    """
    common, total = denominator(objective, counts), jnp.float32(0)
    for place, (name, weight) in enumerate(objective.weights.items()):
        share = 1.0 if place == 0 else common / jnp.maximum(counts[name], 1)
        total = total + weight * share * sums[name].total
    return total


def denominator(objective: Objective, counts: Mapping[str, Array]) -> Float[Array, ""]:
    """The count of the first mean that is minimised."""
    return jnp.maximum(counts[next(iter(objective.weights))], 1)


def values(objective: Objective, sums: Sums) -> dict[str, Array]:
    """The means, the sums as they are, and "loss", which is what is minimised."""
    found = {name: entry.value() if isinstance(entry, Mean) else entry for name, entry in sums.items()}
    return found | {"loss": sum(weight * found[name] for name, weight in objective.weights.items())}
