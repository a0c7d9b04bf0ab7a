"""A folder that Hugging Face's tools left: which of its files are the weights.

The first of these that is there, as `transformers` chooses: model.safetensors, model.safetensors.index.json,
pytorch_model.bin, pytorch_model.bin.index.json. Other weights beside are named in a warning, never mixed in.
"""

import json
import logging
import pathlib

from ualm_jax.buckets import Folder
from ualm_jax.errors import UserError
from ualm_jax.weights.tensor_files import TensorFiles

_WHOLE = ("model.safetensors", "pytorch_model.bin")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json", "*.gguf", "*.pth")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json")
log = logging.getLogger(__name__)


def open_directory(directory: pathlib.Path, prefix: str = "") -> TensorFiles:
    """The weights of a Hugging Face folder: one file, or shards with an index.

    prefix: with it, only the shards that hold such tensors are opened.

    Raises UserError where there are none, or where an adapter lies beside them, whose weights belong to the model.
    """
    for name in _ADAPTERS:
        if (directory / name).is_file():
            raise UserError(
                f"{directory / name}: an adapter lies here, which `transformers` would add to the weights; merge it "
                f"(`merge_and_unload` of peft) and save the model, or move the adapter away to take the base alone."
            )
    for name in _WHOLE:
        index = directory / f"{name}.index.json"
        if (directory / name).is_file():
            _name_others(directory, [directory / name])
            return TensorFiles([directory / name], prefix)
        if index.is_file():
            weight_map = _weight_map(index)
            files = sorted(set(weight_map.values()))
            _name_others(directory, [index, *(directory / file for file in files)])
            wanted = {file: tensor for tensor, file in weight_map.items() if tensor.startswith(prefix)}
            for file, tensor in sorted(wanted.items()):
                if pathlib.PurePath(file).name != file or not (directory / file).is_file():
                    raise UserError(
                        f"{directory / file}: this shard is missing, and tensor {tensor} is in it; copy it again."
                    )
            return TensorFiles([directory / file for file in files if file in wanted], prefix)
    found = sorted({path.name for pattern in _WEIGHTS for path in directory.glob(pattern)})
    beside = f", found {', '.join(found[:3])}, which no index names" if found else ""
    raise UserError(
        f"{directory}: no weights here, expected {' or '.join(_WHOLE)}, whole or sharded with its index{beside}."
    )


def read_json(path: Folder) -> dict:
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


def write_json(path: pathlib.Path, values: dict) -> None:
    """Writes JSON as Hugging Face's tools do: indented, keys in order."""
    path.write_text(json_text(values))


def json_text(values: dict) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    """File of every tensor."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError(f"{index}: expected a weight_map of tensor names to file names, found none.")
    return weight_map


def _name_others(directory: pathlib.Path, used: list[pathlib.Path]) -> None:
    others = sorted({path for pattern in _WEIGHTS for path in directory.glob(pattern)} - set(used))
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        names = ", ".join(path.name for path in others[:3])
        log.warning(
            "%s: %s is read, as transformers does; %s%s beside it are not", directory, used[0].name, names, more
        )
