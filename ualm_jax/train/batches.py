"""Host batches onto the mesh."""

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.types import Batch


def shard_batch(batch: Batch, mesh: Mesh, microbatches: int | None = None) -> Batch:
    """This process's rows as global device arrays [B, ...], rows split over data and fsdp.

    With `microbatches` the rows are dealt into [A, B / A, ...].
    """

    def put(local: np.ndarray) -> jax.Array:
        axes: tuple[str | None, ...] = ("batch",)
        if microbatches is not None:
            local = local.reshape(microbatches, -1, *local.shape[1:])
            axes = (None, "batch")
        sharding = NamedSharding(mesh, spec(*axes, *[None] * (local.ndim - len(axes))))
        return jax.make_array_from_process_local_data(sharding, local)

    return jax.tree.map(put, batch)


def abstract_batch(rows: int, length: int, streams: int, mesh: Mesh | AbstractMesh, microbatches: int) -> Batch:
    """Shapes, dtypes and shardings of what `shard_batch` makes of a batch without audio features."""

    def array(dtype, *axes: int) -> jax.ShapeDtypeStruct:
        shape = (microbatches, rows // microbatches, length, *axes)
        sharding = NamedSharding(mesh, spec(None, "batch", *[None] * (len(shape) - 2)))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    return Batch(
        tokens=array(np.int32, streams),
        loss_weights=array(np.float32, streams),
        segment_ids=array(np.int32),
        positions=array(np.int32),
    )
