"""The language model from the tensors of a format to our arrays, one piece at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from ualm_jax.models.config import Architecture
from ualm_jax.models.hf_names import TABLES, Format, hf_tensors, our_shapes, to_ours, transpose
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.weights.arrays import ArrayInfo, Piece
from ualm_jax.weights.tensor_files import TensorFiles

CHUNK_BYTES = 64 << 20


class InitialValues(NamedTuple):
    """What a format does not hold, drawn from normal(0, std); biases are zero.

    The same seed gives the same numbers on every machine. Row 0 of both tables is zero, as the reference begins.
    """

    seed: int
    std: float

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
        if name.endswith("bias"):
            return np.zeros(shape, dtype)
        draws = np.random.default_rng([self.seed, *name.encode()])
        return (draws.standard_normal(shape, np.float32) * np.float32(self.std)).astype(dtype)

    def row_blocks(self, name: str, vocabulary: Vocabulary, width: int, dtype: np.dtype) -> tuple[np.ndarray, ...]:
        """The rows before the text ids, and those behind them."""
        special = self.array(f"{name}.special", (vocabulary.text_start, width), dtype)
        special[0] = 0
        return special, self.array(f"{name}.audio", (vocabulary.size - vocabulary.audio_start, width), dtype)


def array_infos(form: Format, architecture: Architecture, source: TensorFiles) -> dict[str, ArrayInfo]:
    """Shape, dtype and chunks of all our arrays.

    An array of tensors of several dtypes has the one that holds them all exactly; arrays that `form` lacks have the
    embedding's.
    """
    dtypes: dict[str, set[np.dtype]] = {}
    for name, (tensor, _) in hf_tensors(form, architecture).items():
        dtypes.setdefault(tensor.ours, set()).add(source.tensors[name].dtype)
    dtypes["embed"] = {source.tensors[form.embed].dtype}
    dtypes["text_head"] = dtypes["audio_head"] = {source.tensors[form.head or form.embed].dtype}
    infos = {}
    for path, shape in our_shapes(architecture).items():
        found = dtypes.get(path, dtypes["embed"])
        dtype = np.dtype(np.float32) if len(found) > 1 else next(iter(found))
        infos[path] = ArrayInfo(shape, dtype, chunk(path, shape, dtype))
    return infos


def pieces(
    form: Format,
    architecture: Architecture,
    source: TensorFiles,
    infos: dict[str, ArrayInfo],
    initial: InitialValues | None,
) -> list[Piece]:
    """All arrays from `source`, ordered so that each of its files is opened once.

    initial: values for what `form` does not hold; None where it holds everything.
    """
    made: list[tuple[int, Piece]] = []

    def add(name: str | None, piece: Piece) -> None:
        made.append((-1 if name is None else source.files.index(source.tensors[name].file), piece))

    for name, (tensor, layer) in hf_tensors(form, architecture).items():
        path, info = tensor.ours, infos[tensor.ours]
        shape, index = (info.shape, ...) if layer is None else (info.shape[1:], layer)

        def make(name=name, tensor=tensor, shape=shape, dtype=info.dtype):
            return to_ours(tensor, source.read(name), shape).astype(dtype, copy=False)

        add(name, Piece(path, (index,), make))
    tables = {"embed": form.embed, "head": form.head or form.embed}
    for table, name in tables.items():
        rows = _Rows(form, architecture, source, name, table, initial)
        for piece in _table_pieces(table, rows, infos, architecture.vocabulary):
            add(name, piece)
    for path in set(infos) - {tensor.ours for tensor in form.tensors} - set(TABLES):
        add(None, Piece(path, (...,), lambda path=path: initial.array(path, infos[path].shape, infos[path].dtype)))
    return [piece for _, piece in sorted(made, key=lambda item: item[0])]


def assemble(infos: dict[str, ArrayInfo], made: list[Piece]) -> Iterator[tuple[str, Shaped[np.ndarray, "..."]]]:
    """Whole arrays in memory, one after the other."""
    for path, info in infos.items():
        value = np.empty(info.shape, info.dtype)
        for piece in made:
            if piece.path == path:
                value[piece.index] = piece.make()
        yield path, value


class _Rows:
    """Rows of one of the two tables, in our numbering."""

    def __init__(self, form, architecture, source, name, table, initial):
        self._source, self._name = source, name
        self._range = form.rows(architecture.vocabulary)
        self._before, self._after = None, None
        if initial is not None:
            dtype = source.tensors[name].dtype
            width = architecture.decoder.width
            self._before, self._after = initial.row_blocks(table, architecture.vocabulary, width, dtype)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        first, last = self._range
        parts = []
        if start < first:
            parts.append(self._before[start : min(stop, first)])
        if start < last and stop > first:
            parts.append(self._source.read(self._name, slice(max(start, first) - first, min(stop, last) - first)))
        if stop > last:
            parts.append(self._after[max(start, last) - last : stop - last])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _table_pieces(table: str, rows: _Rows, infos: dict[str, ArrayInfo], vocabulary: Vocabulary) -> Iterator[Piece]:
    if table == "embed":
        for start, stop in _blocks(vocabulary.size, infos["embed"].chunk[0]):
            yield Piece("embed", (slice(start, stop),), lambda start=start, stop=stop: rows(start, stop))
        return
    for start, stop in _blocks(vocabulary.audio_start, infos["text_head"].chunk[1]):
        yield Piece(
            "text_head", (slice(None), slice(start, stop)), lambda start=start, stop=stop: transpose(rows(start, stop))
        )
    for stream in range(vocabulary.num_codebooks):
        start = vocabulary.audio_pad(stream)
        stop = start + vocabulary.stream_size
        yield Piece("audio_head", (slice(None), stream), lambda start=start, stop=stop: transpose(rows(start, stop)))


def _blocks(size: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, step):
        yield start, min(start + step, size)


def chunk(path: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """The shape of the chunks of one of our arrays: a layer, or rows of a table of CHUNK_BYTES together."""
    if path.startswith("decoder.layers."):
        return (1, *shape[1:])
    if path == "embed":
        return (_rows_per_chunk(shape[1], shape[0], dtype), shape[1])
    if path == "text_head":
        return (shape[0], _rows_per_chunk(shape[0], shape[1], dtype))
    if path == "audio_head":
        return (shape[0], 1, shape[2])
    return shape


def _rows_per_chunk(width: int, rows: int, dtype: np.dtype) -> int:
    return max(1, min(rows, CHUNK_BYTES // (width * dtype.itemsize)))
