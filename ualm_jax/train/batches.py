"""Batches: what a loop asks of them, and how host rows come onto the mesh."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from ualm_jax.audio.mel import MEL_BINS, MelFrontEnd
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.types import Batch


@runtime_checkable
class Batches(Protocol):
    """An endless iterator over (batch on the mesh, what its rows were made of)."""

    def __next__(self) -> tuple[Any, Any]: ...

    def get_state(self) -> dict[str, Any]:
        """Where the last batch ended: JSON-able, and the same on all processes."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there, with any number of processes and workers."""

    def progress(self) -> dict[str, float]:
        """Metrics of how far the data has been read."""

    def record_names(self, records: Any) -> Sequence[str]:
        """The records that the second part of an item stands for."""

    def close(self) -> None:
        """Ends its workers."""


class ShardedBatches:
    """The batches of a loader, on `mesh`. loader: such as `data.loading.loader.make_loader` makes."""

    def __init__(self, loader: Any, mesh: Mesh, record_names: Callable[[Any], Sequence[str]], microbatches: int | None):
        self._loader, self._mesh, self._microbatches = loader, mesh, microbatches
        self.record_names = record_names
        self.get_state, self.set_state, self.close = loader.get_state, loader.set_state, loader.close

    def __next__(self) -> tuple[Any, Any]:
        batch, records = next(self._loader)
        return shard_batch(batch, self._mesh, self._microbatches), records

    def progress(self) -> dict[str, float]:
        """Of every source: its share of all tokens read so far, and the tokens and epochs themselves."""
        found = {}
        for source in self._loader.progress():
            found[f"data/{source.directory}/share"] = source.share
            found[f"data/{source.directory}/tokens"] = float(source.tokens)
            found[f"data/{source.directory}/epochs"] = source.epochs
        return found


def shard_batch(batch: Any, mesh: Mesh, microbatches: int | None = None) -> Any:
    """This process's rows as global device arrays [B, ...], rows split over data and fsdp.

    batch: a pytree of numpy arrays with the same number of rows. With `microbatches` they are dealt into
    [A, B / A, ...].
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
    """Shapes, dtypes and shardings of what `shard_batch` makes of a batch in which nothing is heard."""

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


def with_windows(batch: Batch, front_end: MelFrontEnd, windows: int, mesh: Mesh | AbstractMesh) -> Batch:
    """An abstract batch [A, B, T, S] with so many windows to hear in each row."""
    microbatches, rows, length, _ = batch.tokens.shape

    def array(dtype, *axes: int) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec(None, "batch", *[None] * len(axes)))
        return jax.ShapeDtypeStruct((microbatches, rows, *axes), dtype, sharding=sharding)

    return batch._replace(
        mels=array(np.float32, windows, MEL_BINS, front_end.batch_frames),
        mel_frames=array(np.int32, windows),
        feature_index=array(np.int32, length),
    )
