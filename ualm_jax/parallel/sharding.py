"""The one table that says which mesh axis each logical array axis is split over.

Arrays are described by logical axis names ("embed", "heads", ...); only this file knows mesh axes.
The mesh is explicit (`jax.set_mesh`), so a sharding that does not fit is an error, not a slow program.
"""

import jax
from jax.sharding import PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str, str | tuple[str, ...]] = {
    # activations
    "batch": ("data", "fsdp"),
    # parameters: "embed" is the FSDP axis of every matrix, the other axis is tensor-parallel
    "vocab": "fsdp",  # of the embedding table: gathered by rows, so rows must be whole when read
    "embed_tensor": "tensor",
    "embed": "fsdp",
    "vocab_tensor": "tensor",  # of the output head: logits stay split over the vocabulary
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
}


def spec(*axes: str | None) -> PartitionSpec:
    """PartitionSpec of an array with these logical axes; None is an axis that is never split."""
    mapped = [RULES[axis] if axis is not None else None for axis in axes]
    used = [name for entry in mapped if entry for name in (entry if isinstance(entry, tuple) else (entry,))]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {axes} collide: they map to mesh axes {mapped}")
    return PartitionSpec(*mapped)


def gathered(array: jax.Array, *axes: str | None) -> jax.Array:
    """`array` resharded to these logical axes (an all-gather where it was split before)."""
    return jax.reshard(array, spec(*axes))
