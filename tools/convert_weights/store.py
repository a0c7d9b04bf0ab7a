"""Arrays on disk, written and read piece by piece.

Written are zarr3 arrays in the layout of an Orbax checkpoint, one folder per array, one chunk per layer or some
tens of megabytes: any mesh restores its own parts. Read are these, and the checkpoints that training writes.
"""

import ast
import collections
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped

from ualm_jax.errors import UserError

IN_FLIGHT_BYTES = 256 << 20  # values whose writes have not ended; a larger one goes alone
Index = tuple[slice | int, ...]


class ArrayInfo(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]


class Piece(NamedTuple):
    """A whole number of chunks of one array, and how to make it."""

    path: str
    index: Index
    make: Callable[[], Shaped[np.ndarray, "..."]]


def write_arrays(
    directory: pathlib.Path,
    arrays: Mapping[str, ArrayInfo],
    pieces: Iterable[Piece],
    advance: Callable[[int], None] = lambda size: None,
) -> None:
    """Writes `pieces` in their order into a new `directory`; `advance` hears of the bytes of each.

    Raises ValueError where a piece does not fit its array, or the pieces do not fill the arrays.
    """
    stores = {path: _create(directory / path, info) for path, info in arrays.items()}
    left = {path: math.prod(info.shape) for path, info in arrays.items()}
    pending: collections.deque = collections.deque()  # of (write, bytes), the oldest first
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
            advance(value.nbytes)
    finally:
        for write, _ in pending:  # also after an error: nothing may still be written where the caller cleans up
            write.result()
    if any(left.values()):
        raise ValueError(f"not filled: {[path for path, count in left.items() if count]}")
    _write_orbax_metadata(directory, {path: info.shape for path, info in arrays.items()})


class ArrayStore:
    """Arrays by path, of a converted checkpoint's `params` or of one step of a training run."""

    def __init__(self, directory: pathlib.Path):
        """directory: `params` of a converted checkpoint, or `checkpoints/STEP/state` of a run."""
        try:
            metadata = json.loads((directory / "_METADATA").read_text())
            names = [ast.literal_eval(name) for name in metadata["tree_metadata"]]
        except (OSError, ValueError, KeyError, SyntaxError) as error:
            raise UserError(f"{directory}: expected the arrays of a checkpoint, found none ({error}).") from None
        self._directory = directory
        self._run = metadata["use_ocdbt"]
        if self._run:
            names = [name[1:-1] for name in names if name[0] == "params"]
        self._opened = {".".join(name): None for name in names}

    @property
    def paths(self) -> set[str]:
        return set(self._opened)

    def shape(self, path: str) -> tuple[int, ...]:
        return tuple(self._store(path).shape)

    def dtype(self, path: str) -> np.dtype:
        return self._store(path).dtype.numpy_dtype

    def read(self, path: str, index: Index = ()) -> Shaped[np.ndarray, "..."]:
        """An array or part of it. Raises UserError where a chunk is missing or fails its checksum."""
        try:
            return self._store(path)[index].read().result()
        except ValueError as error:
            raise UserError(f"{self._directory}: array {path} is damaged ({str(error).splitlines()[0]}).") from None

    def _store(self, path: str):
        if self._opened[path] is None:
            if self._run:
                base = self._directory.absolute().as_uri() + "/"
                store = {
                    "driver": "zarr",
                    "kvstore": {"driver": "ocdbt", "base": base, "path": f"params.{path}.value/"},
                }
            else:
                store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{self._directory / path}/"}}
            try:
                self._opened[path] = ts.open(store | {"fill_missing_data_reads": False}, read=True).result()
            except ValueError as error:
                found = str(error).splitlines()[0]
                raise UserError(f"{self._directory}: array {path} cannot be read ({found}).") from None
        return self._opened[path]


def _create(path: pathlib.Path, info: ArrayInfo):
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{path}/"},
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
