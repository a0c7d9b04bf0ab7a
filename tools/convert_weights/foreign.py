"""Foreign tensors on disk: safetensors files and torch pickles, read one tensor, or some of its rows, at a time.

Files are memory-mapped and only one is open at any moment, so what is in memory is what the caller holds.
"""

import json
import os
import pathlib
import pickle
import re
from collections.abc import Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors
from jaxtyping import Shaped

from ualm_jax.errors import UserError

WEIGHTS = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
# Counters and flags, which codecs carry along.
_DTYPES = WEIGHTS | {"I64": np.dtype(np.int64), "I32": np.dtype(np.int32), "BOOL": np.dtype(np.bool_)}
_INDEXED = ("model.safetensors", "pytorch_model.bin")


class Info(NamedTuple):
    file: pathlib.Path
    shape: tuple[int, ...]
    dtype: np.dtype


class TensorFiles:
    """Tensors by name. `tensors` says where each lies, its shape and its dtype.

    prefix: only tensors whose names begin so are seen, and under the rest of their names.
    """

    def __init__(self, files: list[pathlib.Path], prefix: str = ""):
        self.files = files
        self.prefix = prefix
        self.tensors: dict[str, Info] = {}
        self._open_path: pathlib.Path | None = None
        for file in files:
            for name, (shape, dtype) in self._file(file).tensors.items():
                if not name.startswith(prefix):
                    continue
                if dtype not in _DTYPES.values():
                    raise UserError(f"{file}: tensor {name} has dtype {dtype}, which is not read here; store it anew.")
                self.tensors[name.removeprefix(prefix)] = Info(file, shape, dtype)

    def read(self, name: str, rows: slice = slice(None)) -> Shaped[np.ndarray, "..."]:
        """The tensor, or these rows of it, in its own dtype. Raises UserError where a number is not finite."""
        file = self.tensors[name].file
        value = self._file(file).read(self.prefix + name, rows)
        if not is_finite(value):
            raise UserError(f"{file}: tensor {self.prefix + name} holds NaN or infinity; these weights are damaged.")
        return value

    def check(self, expected: Mapping[str, tuple[int, ...]], where: pathlib.Path, unread: frozenset = frozenset()):
        """Raises UserError where a tensor is missing, left over (and not in `unread`), or of the wrong shape."""
        missing = sorted(set(expected) - set(self.tensors))
        if missing:
            raise UserError(
                f"{where}: tensor {self.prefix + missing[0]} is missing{_others(missing)}; "
                f"is this checkpoint whole, and of this architecture?"
            )
        unused = sorted(set(self.tensors) - set(expected) - unread)
        if unused:
            raise UserError(
                f"{self.tensors[unused[0]].file}: tensor {self.prefix + unused[0]} has no place in this "
                f"model{_others(unused)}; the checkpoint is of another architecture or size."
            )
        for name, shape in expected.items():
            info = self.tensors[name]
            if info.dtype not in WEIGHTS.values():
                raise UserError(
                    f"{info.file}: tensor {self.prefix + name} has dtype {info.dtype}; expected float32, bfloat16 "
                    f"or float16 weights."
                )
            if info.shape != shape:
                raise UserError(
                    f"{info.file}: tensor {self.prefix + name} has shape {info.shape}, expected {shape} from the "
                    f"configuration beside it; they are not of one model."
                )

    def _file(self, path: pathlib.Path):
        if self._open_path != path:
            self._opened = None  # before the next is opened: two shards need not fit
            self._opened = _Pickle(path) if path.suffix in (".bin", ".pt") else _Safetensors(path)
            self._open_path = path
        return self._opened


def open_directory(directory: pathlib.Path, prefix: str = "") -> TensorFiles:
    """The weights of a Hugging Face directory: one file, or shards with an index.

    prefix: with it, only the shards that hold such tensors are opened.
    """
    for name in _INDEXED:
        index = directory / f"{name}.index.json"
        if index.is_file():
            return TensorFiles(_shards(directory, index, prefix), prefix)
        if (directory / name).is_file():
            return TensorFiles([directory / name], prefix)
    raise UserError(f"{directory}: no weights here, expected {' or '.join(_INDEXED)}, whole or sharded with its index.")


def read_json(path: pathlib.Path) -> dict:
    """A JSON object. Raises UserError where there is none."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file.") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found a file that does not parse ({error}).") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(values).__name__}.")
    return values


def is_finite(value: Shaped[np.ndarray, "..."]) -> bool:
    """Whether no number is NaN or infinite."""
    if value.dtype.itemsize != 2:
        return bool(np.isfinite(value).all())
    # Without the sign, exponents of all ones are the largest 16-bit patterns: much faster than ufuncs of ml_dtypes.
    infinity = np.asarray(np.inf, value.dtype).view(np.uint16) << 1
    return value.size == 0 or bool((value.view(np.uint16) << 1).max() < infinity)


def _shards(directory: pathlib.Path, index: pathlib.Path, prefix: str) -> list[pathlib.Path]:
    by_file: dict[str, str] = {}
    for tensor, file in read_json(index).get("weight_map", {}).items():
        if tensor.startswith(prefix):
            by_file.setdefault(file, tensor)
    for file, tensor in by_file.items():
        if pathlib.PurePath(file).name != file or not (directory / file).is_file():
            raise UserError(f"{directory / file}: this shard is missing, and tensor {tensor} is in it; copy it again.")
    return [directory / file for file in sorted(by_file)]


class _Safetensors:
    def __init__(self, path: pathlib.Path):
        self._path = path
        try:
            self._file = safetensors.safe_open(path, framework="numpy")
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path}: {_damage(path)} ({_first_line(error)}); copy it again.") from None
        self.tensors = {}
        for name in self._file.keys():
            view = self._file.get_slice(name)
            self.tensors[name] = (tuple(view.get_shape()), _DTYPES.get(view.get_dtype(), view.get_dtype()))

    def read(self, name: str, rows: slice) -> np.ndarray:
        return self._file.get_tensor(name) if rows == slice(None) else self._file.get_slice(name)[rows]


class _Pickle:
    """What torch saved: a dict of tensors, or DeepSpeed's with one under "module"."""

    def __init__(self, path: pathlib.Path):
        try:
            import torch
        except ImportError:
            raise UserError(f"{path}: torch is needed to read it; `pip install '.[torch]'`.") from None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path}: holds more than tensors and was not loaded, because reading it could run code "
                f"({_refused(error)}); ask its maker for safetensors."
            ) from None
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            raise UserError(
                f"{path}: torch cannot read it, it is damaged or cut short ({_first_line(error)})."
            ) from None
        state = content.get("module", content) if isinstance(content, dict) else None
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise UserError(f"{path}: expected a dict of tensors, alone or under 'module', found none.")
        self._state = state
        names = {str(dtype): dtype for dtype in _DTYPES.values()} | {"bool": np.dtype(np.bool_)}
        self.tensors = {
            name: (tuple(value.shape), names.get(str(value.dtype).removeprefix("torch."), value.dtype))
            for name, value in state.items()
        }

    def read(self, name: str, rows: slice) -> np.ndarray:
        import torch

        value, dtype = self._state[name], self.tensors[name][1]
        if value.ndim:
            value = value[rows]
        if value.dtype == torch.bfloat16:
            value = value.view(torch.int16)
        return value.numpy().view(dtype)


def _damage(path: pathlib.Path) -> str:
    """What is wrong with a safetensors file, naming the first tensor that is not whole."""
    size = os.path.getsize(path) if path.is_file() else 0
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        ends = {name: 8 + length + entry["data_offsets"][1] for name, entry in header.items() if name[0] != "_"}
    except (ValueError, OSError, KeyError, TypeError, MemoryError, OverflowError, AttributeError):
        return "is no safetensors file, or its header is cut short"
    cut = [name for name, end in sorted(ends.items(), key=lambda item: item[1]) if end > size]
    return f"is cut short, tensor {cut[0]} is not whole" if cut else "is a damaged safetensors file"


def _refused(error: Exception) -> str:

    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {found.group(1)}" if found else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


def _others(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
