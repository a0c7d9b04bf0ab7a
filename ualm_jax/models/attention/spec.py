"""Who may attend to whom, said in O(T), never as a dense mask."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

SAVED = "attention"
"""What remat knows a backend's results by (`decoder._REMAT`): all that its backward pass needs of the forward one, so
that a policy that keeps one keeps the others. What is returned is one of them, and is kept once."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """A position sees those of its own segment and, if `causal`, only itself and what stands before it.

    segment_ids: a segment is a run of equal ids; an id does not come again later in its row.
    ranges: `segment_ranges` of them where they were made ahead, for all layers at once; see `with_ranges`.
    """

    segment_ids: Int[Array, "B T"]
    causal: bool = dataclasses.field(default=True, metadata={"static": True})
    ranges: tuple[Int[Array, "B T"], Int[Array, "B T"]] | None = None

    def with_ranges(self) -> "AttentionSpec":
        """The spec with the ranges that kernels read; without them each layer makes them, in both passes."""
        ranges = segment_ranges(self.segment_ids) if self.ranges is None else self.ranges
        return dataclasses.replace(self, ranges=ranges)


def segment_ranges(segment_ids: Int[Array, "B T"]) -> tuple[Int[Array, "B T"], Int[Array, "B T"]]:
    """First position of each position's segment, and the one after its last."""
    T = segment_ids.shape[1]
    index = jnp.arange(T)
    first = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    last = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    start = jax.lax.cummax(jnp.where(first, index, 0), axis=1)
    end = jax.lax.cummin(jnp.where(last, index + 1, T), axis=1, reverse=True)
    return start, end
