"""Writing safetensors, sharded at a size limit, with the index that Hugging Face's loaders read."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped
from safetensors.numpy import save_file

from ualm_jax.convert_weights.progress import Progress, silent

SHARD_BYTES = 2 << 30


def write_safetensors(
    directory: pathlib.Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    read: Callable[[str], Shaped[np.ndarray, "..."]],
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = silent,
) -> None:
    """Writes `tensors` (shape and dtype by name), read one shard at a time, as model.safetensors or as shards.

    A tensor larger than the limit has a shard of its own.
    """
    sizes = {name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in tensors.items()}
    shards: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if shards[-1] and held + size > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += size
    weight_map, done, total = {}, 0, sum(sizes.values())
    for number, names in enumerate(shards, start=1):
        whole = len(shards) == 1
        file = "model.safetensors" if whole else f"model-{number:05}-of-{len(shards):05}.safetensors"
        values = {name: np.ascontiguousarray(read(name)) for name in names}
        save_file(values, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
        done += sum(value.nbytes for value in values.values())
        progress(done, total)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
