"""Who may attend to whom, said in O(T), never as a dense mask."""

import dataclasses

import jax
from jaxtyping import Array, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """A position sees those of its own segment and, if `causal`, only itself and what stands before it.

    segment_ids: a segment is a run of equal ids; an id does not come again later in its row.
    """

    segment_ids: Int[Array, "B T"]
    causal: bool = dataclasses.field(default=True, metadata={"static": True})
