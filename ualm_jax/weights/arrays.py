"""The arrays of a checkpoint, read piece by piece: of a converted one, or of one that training wrote."""

import ast
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped

from ualm_jax.buckets import Folder, in_bucket
from ualm_jax.errors import UserError

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


def averaged_paths(directory: Folder) -> set[str]:
    """The parameters of which a run keeps a moving average, which then stands for them; `directory` is its `state`."""
    return {".".join(name[2:-1]) for name in _names(directory)[0] if name[:2] == ("opt_state", "average")}


def _names(directory: Folder) -> tuple[list[tuple[str, ...]], bool]:
    """Paths of all arrays that Orbax stored, and whether a run did."""
    try:
        metadata = json.loads((directory / "_METADATA").read_text())
        return [ast.literal_eval(name) for name in metadata["tree_metadata"]], metadata["use_ocdbt"]
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        raise UserError(f"{directory}: expected the arrays of a checkpoint, found none ({error}).") from None


class ArrayStore:
    """Arrays of the model by path, from `params` of a converted checkpoint or `checkpoints/STEP/state` of a run."""

    def __init__(self, directory: Folder):
        names, self._run = _names(directory)
        self._directory = directory
        self._averaged = averaged_paths(directory) if self._run else set()
        if self._run:  # a trained encoder lies in its own layout beside `state` (weights/run_folder.py)
            names = [name[1:-1] for name in names if name[0] == "params" and name[1] != "encoder"]
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
            # tensorstore takes no ".."
            base = str(self._directory) if in_bucket(self._directory) else self._directory.resolve().as_uri()
            if self._run:
                group = "opt_state.average" if path in self._averaged else "params"
                store = {
                    "driver": "zarr",
                    "kvstore": {"driver": "ocdbt", "base": f"{base}/", "path": f"{group}.{path}.value/"},
                }
            else:
                store = {"driver": "zarr3", "kvstore": f"{base}/{path}/"}
            try:
                self._opened[path] = ts.open(store | {"fill_missing_data_reads": False}, read=True).result()
            except ValueError as error:
                found = str(error).splitlines()[0]
                raise UserError(f"{self._directory}: array {path} cannot be read ({found}).") from None
        return self._opened[path]

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raises UserError where the arrays are not those of a model with these shapes."""
        if self.paths != set(expected):
            differing = sorted(self.paths ^ set(expected))[:3]
            raise UserError(f"{self._directory}: its arrays are not those of its model: {', '.join(differing)}.")
        for path, shape in expected.items():
            if self.shape(path) != shape:
                raise UserError(f"{self._directory}: array {path} has shape {self.shape(path)}, expected {shape}.")
