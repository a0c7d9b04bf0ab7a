"""The one table that says which mesh axis each logical array axis is split over.

Arrays are described by logical axis names ("embed", "heads", ...); only this file knows mesh axes.
The mesh is explicit (`jax.set_mesh`), so a sharding that does not fit is an error, not a slow program.
"""

import jax
import numpy as np
from jax.sharding import PartitionSpec

from ualm_jax.parallel.processes import from_all

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str, str | tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    # Every matrix is split over fsdp along the model's width and over tensor along its other axis.
    "embed": "fsdp",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "codebooks": "tensor",
    # The token table is read by rows, so its rows stay whole: fsdp and tensor both split the width.
    "embed_row": ("tensor", "fsdp"),
}


def spec(*axes: str | None) -> PartitionSpec:
    """PartitionSpec of an array with these logical axes; None is an axis that is never split."""
    mapped = [RULES[axis] if axis is not None else None for axis in axes]
    used = [name for entry in mapped if entry for name in (entry if isinstance(entry, tuple) else (entry,))]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {axes} collide: they map to mesh axes {mapped}")
    return PartitionSpec(*mapped)


def reshard(array: jax.Array, *axes: str | None) -> jax.Array:
    """`array` split as these logical axes say: an all-gather where it was split before."""
    return jax.reshard(array, spec(*axes))


def on_host(array: jax.Array) -> np.ndarray:
    """All of `array` on this process, wherever its parts lie. Every process must call it."""
    return np.asarray(array if array.is_fully_addressable else from_all("gather an array", array, tiled=True))
