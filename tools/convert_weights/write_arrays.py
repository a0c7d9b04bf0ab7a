"""Arrays written piece by piece: zarr3 in the layout of an Orbax checkpoint.

One folder per array, one chunk per layer or some tens of megabytes: any mesh restores its own parts.
"""

import collections
import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from ualm_jax.convert_weights.progress import Progress, silent
from ualm_jax.weights.arrays import ArrayInfo, Piece

IN_FLIGHT_BYTES = 256 << 20  # values whose writes have not ended; a larger one goes alone


def write_arrays(
    directory: pathlib.Path,
    arrays: Mapping[str, ArrayInfo],
    pieces: Iterable[Piece],
    progress: Progress = silent,
) -> None:
    """Writes `pieces` in their order into a new `directory`.

    Raises ValueError where a piece does not fit its array, or the pieces do not fill the arrays.
    """
    stores = {path: _create(directory / path, info) for path, info in arrays.items()}
    left = {path: math.prod(info.shape) for path, info in arrays.items()}
    pending: collections.deque = collections.deque()  # of (write, bytes), the oldest first
    done, total = 0, sum(math.prod(info.shape) * info.dtype.itemsize for info in arrays.values())
    try:
        for piece in pieces:
            value, info = np.ascontiguousarray(piece.make()), arrays[piece.path]
            target = stores[piece.path][piece.index]
            if value.dtype != info.dtype or value.shape != target.shape:
                raise ValueError(
                    f"{piece.path}{piece.index}: {value.dtype}{value.shape} for {info.dtype}{target.shape}"
                )
            while pending and sum(size for _, size in pending) + value.nbytes > IN_FLIGHT_BYTES:
                pending.popleft()[0].result()
            pending.append((target.write(value, can_reference_source_data_indefinitely=True), value.nbytes))
            left[piece.path] -= value.size
            done += value.nbytes
            progress(done, total)
    finally:
        for write, _ in pending:  # also after an error: nothing may still be written where the caller cleans up
            write.result()
    if any(left.values()):
        raise ValueError(f"not filled: {[path for path, count in left.items() if count]}")
    _write_orbax_metadata(directory, {path: info.shape for path, info in arrays.items()})


def _create(path: pathlib.Path, info: ArrayInfo):
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{path.resolve()}/"},  # it takes no ".."
        "metadata": {
            "shape": info.shape,
            "data_type": info.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": info.chunk}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        },
        # Zeros are data here: a chunk that is absent is damage.
        "store_data_equal_to_fill_value": True,
    }
    return ts.open(spec, create=True, delete_existing=True).result()


def _write_orbax_metadata(directory: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """What makes a folder of zarr3 arrays, named by their paths, an Orbax checkpoint of a nested dict."""

    def entry(path: str, shape: tuple[int, ...]) -> dict[str, Any]:
        keys = [{"key": key, "key_type": 2} for key in path.split(".")]
        value = {"value_type": "jax.Array", "skip_deserialize": False, "write_shape": list(shape)}
        return {"key_metadata": keys, "value_metadata": value}

    tree = {str(tuple(path.split("."))): entry(path, shape) for path, shape in sorted(shapes.items())}
    metadata = {
        "tree_metadata": tree,
        "use_ocdbt": False,
        "use_zarr3": True,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }
    (directory / "_METADATA").write_text(json.dumps(metadata) + "\n")
