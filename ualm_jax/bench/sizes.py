"""Models to be timed, by name."""

import argparse
from typing import NamedTuple

from ualm_jax.models.config import QWEN2_5, Architecture, DecoderConfig, Execution
from ualm_jax.tokens.vocabulary import Vocabulary

_CODES = 1024

# name -> decoder and rows of the text table
SIZES = {
    "tiny": (DecoderConfig(num_layers=4, width=128, num_heads=4, num_kv_heads=2, mlp_dim=512), 2048),
    "small": (DecoderConfig(num_layers=8, width=512, num_heads=8, num_kv_heads=2, mlp_dim=2048), 8192),
    "0.5b": (QWEN2_5["0.5b"], 151_936),
    "1.5b": (QWEN2_5["1.5b"], 151_936),
    "3b": (QWEN2_5["3b"], 151_936),
    "7b": (QWEN2_5["7b"], 152_064),
}


class SizedModel(NamedTuple):
    """What is timed."""

    architecture: Architecture
    execution: Execution


def model_config(args: argparse.Namespace, **fields: str | bool) -> SizedModel:
    """The model of `args`. Parameters are float32 where they are trained; `fields` overrides."""
    decoder, text_size = SIZES[args.size]
    execution = Execution(
        **{"compute_dtype": args.dtype, "attention": args.attention, "param_dtype": "float32"} | fields
    )
    return SizedModel(Architecture(decoder, Vocabulary(text_size, _CODES)), execution)
