"""Low-rank adapters in the layout of Hugging Face's PEFT, of which Qwen2's kernels can be read and written.

DIR/adapter_config.json         rank, alpha, and which modules have adapters
DIR/adapter_model.safetensors   base_model.model.MODULE.lora_A.weight [rank, inputs], lora_B.weight [outputs, rank]
Source: `peft/utils/save_and_load.py` and `peft/tuners/lora/config.py` of PEFT 0.18.
"""

import json
import math
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ualm_jax.errors import UserError
from ualm_jax.models.hf_names import QWEN2
from ualm_jax.models.lora import LoraConfig
from ualm_jax.weights.arrays import ArrayStore
from ualm_jax.weights.hf_folder import read_json, write_json

CONFIG, ARRAYS = "adapter_config.json", "adapter_model.safetensors"
_PLAIN = {  # what this version can neither train nor read
    "use_rslora": False,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "modules_to_save": None,
    "bias": "none",
    "fan_in_fan_out": False,
}


def write_adapters(store: ArrayStore, config: LoraConfig, out: pathlib.Path) -> int:
    """Writes into the folder `out` from the stored arrays of a run; returns the bytes of the arrays.

    Which Qwen2 the adapters belong to is not known here: `base_model_name_or_path` stays empty.
    """
    arrays = {}
    for path, module, inputs in _kernels(config):
        a, b = store.read(f"{path}.lora_a"), store.read(f"{path}.lora_b")
        for layer in range(len(a)):
            name = _name(module, layer)
            flat = a[layer].reshape(math.prod(a[layer].shape[:inputs]), -1), b[layer].reshape(len(b[layer]), -1)
            arrays |= {
                f"{name}.lora_{letter}.weight": np.ascontiguousarray(array.T)
                for letter, array in zip("AB", flat, strict=True)
            }
    save_file(arrays, out / ARRAYS, metadata={"format": "pt"})
    values = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None}
    values |= {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": 0.0, "inference_mode": True}
    values |= {"target_modules": [module.rsplit(".", 1)[1] for _, module, _ in _kernels(config)]}
    write_json(out / CONFIG, values | _PLAIN)
    return sum(array.nbytes for array in arrays.values())


Adapters = dict[tuple[str, ...], Shaped[np.ndarray, "..."]]
"""Arrays of adapters by their paths among the parameters, all layers stacked."""


def read_adapters(folder: pathlib.Path, config: LoraConfig, params: nnx.State) -> Adapters:
    """The adapters in `folder`, in the shapes that they have among `params`, of which shapes are enough.

    Raises UserError where the folder is none of PEFT, or its adapters are not those of the configuration.
    """
    arrays, adapters = _read(folder, config), {}
    leaves = dict(nnx.to_flat_state(params))
    for path, module, _ in _kernels(config):
        for letter in "ab":
            place = (*path.split("."), f"lora_{letter}")
            leaf = leaves[place]
            names = [f"{_name(module, layer)}.lora_{letter.upper()}.weight" for layer in range(leaf.shape[0])]
            missing = [name for name in names if name not in arrays]
            if missing:
                raise UserError(f"{folder / ARRAYS}: has no array {missing[0]}.")
            value = [arrays.pop(name).T for name in names]
            if value[0].size * len(value) != leaf.size:
                raise UserError(f"{folder / ARRAYS}: {names[0]} has shape {value[0].T.shape}, which does not fit.")
            adapters[place] = np.stack(value).reshape(leaf.shape)
    if arrays:
        raise UserError(f"{folder / ARRAYS}: lora.targets leaves out what it holds, such as {min(arrays)}.")
    return adapters


def put_adapters(adapters: Adapters, params: nnx.State) -> None:
    """Replaces those among `params`, in their shardings and dtypes."""
    leaves = dict(nnx.to_flat_state(params))
    for place, value in adapters.items():
        leaf = leaves[place]
        cast = value.astype(leaf.dtype)
        leaf.set_value(jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda i, v=cast: v[i]))


def _read(folder: pathlib.Path, config: LoraConfig) -> dict[str, Shaped[np.ndarray, "..."]]:
    if not (folder / CONFIG).is_file() or not (folder / ARRAYS).is_file():
        raise UserError(f"{folder}: expected {CONFIG} and {ARRAYS}, as PEFT saves adapters.")
    values = read_json(folder / CONFIG)
    wanted = {"peft_type": "LORA", "r": config.rank, "lora_alpha": config.alpha}
    for name, value in (wanted | _PLAIN).items():
        found = values.get(name, None if name in wanted else value)
        if (found or None) != (value or None):
            raise UserError(
                f"{folder / CONFIG}: {name} is {json.dumps(found)}, but {json.dumps(value)} is needed here."
            )
    try:
        return load_file(folder / ARRAYS)
    except (OSError, SafetensorError, TypeError) as error:
        raise UserError(f"{folder / ARRAYS}: cannot be read ({error}).") from None


def _kernels(config: LoraConfig) -> Iterator[tuple[str, str, int]]:
    """(our path, PEFT's module, number of input axes) of every kernel with an adapter."""
    tensors = {tensor.ours: tensor for tensor in QWEN2.tensors}
    for part, name, inputs in config.kernels():
        path = f"decoder.layers.{part}.{name}"
        yield path, tensors[path].hf.removesuffix(".weight"), inputs


def _name(module: str, layer: int) -> str:
    return f"base_model.model.{module.format(layer=layer)}"
