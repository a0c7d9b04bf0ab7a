"""The language model between a foreign format and ours, one piece at a time, in both directions."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from ualm_jax.convert_weights.foreign import TensorFiles
from ualm_jax.convert_weights.store import ArrayInfo, ArrayStore, Piece
from ualm_jax.errors import UserError
from ualm_jax.models.config import Architecture
from ualm_jax.models.hf_names import (
    TABLES,
    Format,
    Tensor,
    our_shapes,
    their_shapes,
    their_tensors,
    to_ours,
    to_theirs,
    transpose,
)
from ualm_jax.tokens.vocabulary import Vocabulary

CHUNK_BYTES = 64 << 20


class InitialValues(NamedTuple):
    """What a format does not hold, drawn from normal(0, std) in the dtype of the rest; biases are zero.

    The same seed gives the same numbers on every machine. Row 0 of both tables is zero, as the reference begins.
    """

    seed: int
    std: float
    dtype: np.dtype

    def array(self, name: str, shape: tuple[int, ...]) -> Shaped[np.ndarray, "..."]:
        if name.endswith("bias"):
            return np.zeros(shape, self.dtype)
        draws = np.random.default_rng([self.seed, *name.encode()])
        return (draws.standard_normal(shape, np.float32) * np.float32(self.std)).astype(self.dtype)

    def row_blocks(self, name: str, vocabulary: Vocabulary, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows before the text ids, and those behind them."""
        special = self.array(f"{name}.special", (vocabulary.text_start, width))
        special[0] = 0
        return special, self.array(f"{name}.audio", (vocabulary.size - vocabulary.audio_start, width))


def array_infos(form: Format, architecture: Architecture, source: TensorFiles, dtype: np.dtype) -> dict[str, ArrayInfo]:
    """Shape, dtype and chunks of all our arrays; arrays that `form` lacks have `dtype`.

    Raises UserError where layers that are stacked differ in dtype.
    """
    dtypes = {}
    for name, (tensor, _) in their_tensors(form, architecture).items():
        info = source.tensors[name]
        if dtypes.setdefault(tensor.ours, info.dtype) != info.dtype:
            raise UserError(
                f"{info.file}: tensor {name} has dtype {info.dtype}, but other layers have "
                f"{dtypes[tensor.ours]}; store them in one dtype."
            )
    dtypes["embed"] = source.tensors[form.embed].dtype
    dtypes["text_head"] = dtypes["audio_head"] = source.tensors[form.head or form.embed].dtype
    infos = {}
    for path, shape in our_shapes(architecture).items():
        kind = dtypes.get(path, dtype)
        infos[path] = ArrayInfo(shape, kind, _chunk(path, shape, kind))
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

    for name, (tensor, layer) in their_tensors(form, architecture).items():
        add(name, _tensor_piece(name, tensor, layer, source, infos[tensor.ours].shape))
    tables = {"embed": form.embed, "head": form.head or form.embed}
    for table, name in tables.items():
        rows = _Rows(form, architecture, source, name, table, initial)
        for piece in _table_pieces(table, rows, infos, architecture.vocabulary):
            add(name, piece)
    for path in set(infos) - {tensor.ours for tensor in form.tensors} - set(TABLES):
        add(None, Piece(path, (...,), lambda path=path: initial.array(path, infos[path].shape)))
    return [piece for _, piece in sorted(made, key=lambda item: item[0])]


def assemble(infos: dict[str, ArrayInfo], made: list[Piece]) -> Iterator[tuple[str, Shaped[np.ndarray, "..."]]]:
    """Whole arrays in memory, one after the other."""
    for path, info in infos.items():
        value = np.empty(info.shape, info.dtype)
        for piece in made:
            if piece.path == path:
                value[piece.index] = piece.make()
        yield path, value


def read_theirs(form: Format, architecture: Architecture, store: ArrayStore, name: str) -> Shaped[np.ndarray, "..."]:
    """One foreign tensor out of our arrays."""
    first, last = form.rows(architecture.vocabulary)
    if name == form.embed:
        return store.read("embed", (slice(first, last),))
    if name == form.head:
        start = architecture.vocabulary.audio_start
        text = transpose(store.read("text_head", (slice(None), slice(first, min(last, start)))))
        if last <= start:
            return text
        audio = store.read("audio_head")
        return np.concatenate([text, transpose(audio.reshape(len(audio), -1))])
    tensor, layer = their_tensors(form, architecture)[name]
    return to_theirs(tensor, store.read(tensor.ours, () if layer is None else (layer,)))


def their_dtypes(
    form: Format, architecture: Architecture, store: ArrayStore
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of every tensor that `read_theirs` gives."""
    entries = their_tensors(form, architecture)
    tables = {form.embed: "embed", form.head: "text_head"}
    return {
        name: (shape, store.dtype(tables[name] if name in tables else entries[name][0].ours))
        for name, shape in their_shapes(form, architecture).items()
    }


def tables_equal(form: Format, architecture: Architecture, store: ArrayStore) -> bool:
    """Whether embedding and head hold the same bytes in the rows that `form` has."""
    first, last = form.rows(architecture.vocabulary)
    if store.dtype("embed") != store.dtype("text_head") or last > architecture.vocabulary.audio_start:
        return False
    step = max(1, CHUNK_BYTES // (architecture.decoder.width * store.dtype("embed").itemsize))
    return all(
        np.array_equal(
            store.read("embed", (slice(start, stop),)).view(np.uint8),
            transpose(store.read("text_head", (slice(None), slice(start, stop)))).view(np.uint8),
        )
        for start, stop in ((at, min(at + step, last)) for at in range(first, last, step))
    )


def check_store(store: ArrayStore, architecture: Architecture, where: object) -> None:
    """Raises UserError where the arrays are not those of this model."""
    expected = our_shapes(architecture)
    if store.paths != set(expected):
        raise UserError(f"{where}: its arrays are not those of its model: {sorted(store.paths ^ set(expected))[:3]}.")
    for path, shape in expected.items():
        if store.shape(path) != shape:
            raise UserError(f"{where}: array {path} has shape {store.shape(path)}, expected {shape}.")


class _Rows:
    """Rows of one of the two tables, in our numbering."""

    def __init__(self, form, architecture, source, name, table, initial):
        self._source, self._name = source, name
        self._range = form.rows(architecture.vocabulary)
        before, after = (None, None)
        if initial is not None:
            before, after = initial.row_blocks(table, architecture.vocabulary, architecture.decoder.width)
        self._before, self._after = before, after

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


def _tensor_piece(name: str, tensor: Tensor, layer: int | None, source: TensorFiles, shape: tuple[int, ...]) -> Piece:
    if layer is None:
        return Piece(tensor.ours, (...,), lambda: to_ours(tensor, source.read(name), shape))
    return Piece(tensor.ours, (layer,), lambda: to_ours(tensor, source.read(name), shape[1:]))


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


def _chunk(path: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
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
