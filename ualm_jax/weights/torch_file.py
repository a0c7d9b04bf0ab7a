"""Files that `torch.save` wrote, of today's format (a zip archive) or that of before torch 1.6."""

import pathlib
import pickle
import re
import struct
import zipfile

import numpy as np

from ualm_jax.errors import UserError, first_line
from ualm_jax.weights.dtypes import DTYPES

# What torch's readers raise for bytes that are no file of theirs.
_UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, AttributeError, struct.error)


class TorchFile:
    """A dict of tensors, alone or, as DeepSpeed saves it, under "module". Code in the file is never run.

    `tensors`: shape and dtype by name. Raises UserError for anything else, and where torch is not installed.
    """

    def __init__(self, path: pathlib.Path):
        try:
            import torch
        except ImportError:
            raise UserError(
                f"{path}: torch is needed to read it; `pip install '.[torch]'`, or save the weights as safetensors."
            ) from None
        try:
            # Only archives can be mapped into memory; older files are read whole.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            if found is None:
                raise UserError(f"{path}: {_damaged(error)}") from None
            raise UserError(
                f"{path}: holds more than tensors and was not loaded, because reading it could run code "
                f"(it asks for {found.group(1)}); ask its maker for safetensors."
            ) from None
        except _UNREADABLE as error:
            raise UserError(f"{path}: {_damaged(error)}") from None
        state = content.get("module", content) if isinstance(content, dict) else None
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise UserError(f"{path}: expected a dict of tensors, alone or under 'module', found none.")
        self._state = state
        names = {str(dtype): dtype for dtype in DTYPES.values()} | {"bool": np.dtype(np.bool_)}
        self.tensors = {
            name: (tuple(value.shape), names.get(str(value.dtype).removeprefix("torch."), value.dtype))
            for name, value in state.items()
        }

    def read(self, name: str, rows: slice) -> np.ndarray:
        """The tensor, or these rows of it."""
        import torch

        value, dtype = self._state[name].detach(), self.tensors[name][1]
        if value.ndim:
            value = value[rows]
        if value.dtype == torch.bfloat16:
            value = value.view(torch.int16)
        return value.numpy().view(dtype)


def _damaged(error: Exception) -> str:
    return f"torch cannot read it, it is damaged or cut short ({first_line(error)})."
