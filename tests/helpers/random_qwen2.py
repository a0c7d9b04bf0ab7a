"""Random Qwen2 directories: tiny ones by transformers, large ones written tensor by tensor."""

import json
import pathlib

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from ualm_jax.models.config import Architecture, DecoderConfig
from ualm_jax.models.hf_names import QWEN2, hf_shapes
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.weights.hf_config import qwen2_values

TINY = DecoderConfig(num_layers=2, width=32, num_heads=4, num_kv_heads=2, mlp_dim=48, rope_theta=5e5, norm_eps=1e-5)
TEXT_SIZE = 96


def save_tiny(
    directory: pathlib.Path, *, tied: bool = False, dtype: str = "float32", text_size: int = TEXT_SIZE, **saving
) -> pathlib.Path:
    """A model of 2 layers that transformers made and saved. saving: arguments of its `save_pretrained`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**qwen2_values(TINY, text_size, tied=tied, dtype=dtype, kept={})))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.to(getattr(torch, dtype)).save_pretrained(directory, **saving)
    return directory


def save_large(directory: pathlib.Path, decoder: DecoderConfig, text_size: int, shard_bytes: int) -> int:
    """bfloat16 shards of about `shard_bytes`; returns the bytes of all tensors. Holds one shard in memory."""
    config = Architecture(decoder, Vocabulary(text_size, 1024))
    values = qwen2_values(decoder, text_size, tied=False, dtype="bfloat16", kept={})
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(values))
    rng = np.random.default_rng(0)
    weight_map, shard, total, number = {}, {}, 0, 0

    def flush():
        nonlocal shard, number
        save_file(shard, directory / f"model-{number:05}.safetensors")
        weight_map.update(dict.fromkeys(shard, f"model-{number:05}.safetensors"))
        shard, number = {}, number + 1

    for name, shape in hf_shapes(QWEN2, config).items():
        value = np.float32(0.02) * rng.standard_normal(shape, np.float32) + np.float32("norm" in name)
        shard[name] = value.astype(ml_dtypes.bfloat16)
        total += shard[name].nbytes
        if sum(value.nbytes for value in shard.values()) > shard_bytes:
            flush()
    flush()
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map})
    )
    return total
