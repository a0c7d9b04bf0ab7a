"""The weights of a run and what belongs to them, without optimiser, data and history: what is given to others."""

import itertools
import math
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ualm_jax.convert_weights.card import write_card, written_whole
from ualm_jax.convert_weights.progress import Progress, silent
from ualm_jax.convert_weights.write_arrays import write_arrays
from ualm_jax.models.config import DTYPES
from ualm_jax.models.hf_names import our_shapes
from ualm_jax.weights.arrays import ArrayInfo, Index, Piece
from ualm_jax.weights.hf_to_ours import chunk
from ualm_jax.weights.opener import Weights


def export_ours(weights: Weights, out: pathlib.Path, *, dtype: str | None = None, progress: Progress = silent) -> int:
    """A converted checkpoint from a run (of which a moving average stands for the parameters, and adapters are merged)
    or from another one. Tokenizer, codec and encoder beside it are copied. Returns the bytes written.

    dtype: "bfloat16" or "float32", to which all arrays are rounded, those of the encoder's safetensors too, but not the
        codec's, whose codes would change; by default each keeps its own.
    """
    assert dtype in (None, *DTYPES), dtype
    architecture, store = weights.architecture, weights.arrays()
    infos = {}
    for path, shape in our_shapes(architecture).items():
        stored = store.dtype(path) if dtype is None else np.dtype(dtype)
        infos[path] = ArrayInfo(shape, stored, chunk(path, shape, stored))
    pieces = [
        Piece(path, index, lambda path=path, index=index: store.read(path, index).astype(infos[path].dtype))
        for path, info in infos.items()
        for index in _chunks(info)
    ]
    with written_whole(out) as partial:
        for name, folder in weights.parts.items():
            # A checkpoint's mark that it is whole names the folder of the run.
            shutil.copytree(folder, partial / name, ignore=shutil.ignore_patterns("commit_success.txt"))
        if dtype is not None:
            for file in sorted((partial / "encoder").glob("*.safetensors")):
                _round(file, dtype)
        write_arrays(partial / "params", infos, pieces, progress)
        write_card(
            partial,
            kind="ualm",
            importer="export ours",
            source=weights.path,
            hashes={},
            architecture=architecture,
            param_dtype=infos["embed"].dtype.name,
            notes={**weights.notes, "step": weights.step},
        )
    return sum(math.prod(info.shape) * info.dtype.itemsize for info in infos.values())


def _round(file: pathlib.Path, dtype: str) -> None:
    with safe_open(file, framework="numpy") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        metadata = stored.metadata()
    save_file({name: tensor.astype(np.dtype(dtype)) for name, tensor in tensors.items()}, file, metadata)


def _chunks(info: ArrayInfo) -> Iterator[Index]:
    """The chunks of an array, in order."""
    starts = (range(0, size, step) for size, step in zip(info.shape, info.chunk, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(
            slice(at, min(at + step, size)) for at, step, size in zip(corner, info.chunk, info.shape, strict=True)
        )
