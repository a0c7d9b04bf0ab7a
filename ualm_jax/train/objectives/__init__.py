"""What training minimises and measures, as sums and counts: how a batch is cut into pieces then changes nothing."""

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
    """A pure function of a model and a batch: the sums of its rows, whatever rows stand beside each other.

    "loss" among the sums is a scalar `Mean`, the one that is minimised; the others are only reported.
    """

    def __call__(self, model: Any, batch: Any) -> Sums: ...


def values(sums: Sums) -> dict[str, Array]:
    """The means, and the sums as they are."""
    return {name: entry.value() if isinstance(entry, Mean) else entry for name, entry in sums.items()}
