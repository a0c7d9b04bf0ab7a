"""Tensors in files of others: safetensors and torch files, read one tensor, or some of its rows, at a time.

Files are memory-mapped and only one is open at any moment, so what is in memory is what the caller holds.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import safetensors
from jaxtyping import Shaped

from ualm_jax.errors import UserError, first_line
from ualm_jax.weights.dtypes import DTYPES, WEIGHTS
from ualm_jax.weights.torch_file import TorchFile


class Info(NamedTuple):
    file: pathlib.Path
    shape: tuple[int, ...]
    dtype: np.dtype


class TensorFiles:
    """Tensors by name. `tensors` says where each lies, its shape and its dtype.

    prefix: only tensors whose names begin so are seen, and under the rest of their names.

    Raises UserError for a file that is damaged, a dtype that is not read here, or a name that two files have.
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
                if dtype not in DTYPES.values():
                    raise UserError(f"{file}: tensor {name} has dtype {dtype}, which is not read here; store it anew.")
                short = name.removeprefix(prefix)
                if short in self.tensors:
                    raise UserError(
                        f"{file}: tensor {name} is in {self.tensors[short].file.name} too; shards of two checkpoints "
                        f"lie here, remove those of one."
                    )
                self.tensors[short] = Info(file, shape, dtype)

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
            self._opened = TorchFile(path) if path.suffix in (".bin", ".pt") else _SafetensorsFile(path)
            self._open_path = path
        return self._opened


def is_finite(value: Shaped[np.ndarray, "..."]) -> bool:
    """Whether no number is NaN or infinite."""
    if value.dtype.itemsize != 2:
        return bool(np.isfinite(value).all())
    # Without the sign, exponents of all ones are the largest 16-bit patterns: much faster than ufuncs of ml_dtypes.
    infinity = np.asarray(np.inf, value.dtype).view(np.uint16) << 1
    return value.size == 0 or bool((value.view(np.uint16) << 1).max() < infinity)


class _SafetensorsFile:
    def __init__(self, path: pathlib.Path):
        try:
            self._file = safetensors.safe_open(path, framework="numpy")
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path}: {_damage(path)} ({first_line(error)}); copy it again.") from None
        self.tensors = {}
        for name in self._file.keys():
            view = self._file.get_slice(name)
            self.tensors[name] = (tuple(view.get_shape()), DTYPES.get(view.get_dtype(), view.get_dtype()))

    def read(self, name: str, rows: slice) -> np.ndarray:
        return self._file.get_tensor(name) if rows == slice(None) else self._file.get_slice(name)[rows]


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


def _others(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
