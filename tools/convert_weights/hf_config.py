"""Qwen2's config.json, read and written."""

import pathlib
from typing import Any

from ualm_jax.convert_weights.foreign import read_json
from ualm_jax.errors import UserError
from ualm_jax.models.config import DecoderConfig

_NAMES = {
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "mlp_dim": "intermediate_size",
}
# What the decoder computes; a config may ask for something else, and then it is refused.
_FIXED = {"model_type": "qwen2", "hidden_act": "silu", "use_sliding_window": False, "rope_scaling": None}
# What it does not decide, but who generates with transformers wants back.
_KEPT = ("max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


def read_qwen2(path: pathlib.Path) -> tuple[DecoderConfig, int, bool, dict[str, Any]]:
    """Decoder, rows of the text table, whether head and table are tied, and fields to keep for an export.

    Raises UserError for another architecture, or a field that the decoder does not compute.
    """
    values = read_json(path)
    for name, expected in _FIXED.items():
        if values.get(name, expected) != expected:
            raise UserError(f"{path}: {name} must be {expected!r}, found {values[name]!r}; only Qwen2 can be read.")
    for name in (*_NAMES.values(), "vocab_size", "model_type"):
        if name not in values:
            raise UserError(f"{path}: {name} is missing; expected the configuration of a Qwen2 model.")
    rope = values.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"{path}: rope_parameters.rope_type must be 'default', found {rope['rope_type']!r}.")
    theta = rope.get("rope_theta", values.get("rope_theta", 10000.0))  # the default of Qwen2Config
    sizes = {ours: values[theirs] for ours, theirs in _NAMES.items()}
    try:
        decoder = DecoderConfig(**sizes, rope_theta=float(theta), norm_eps=float(values.get("rms_norm_eps", 1e-6)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if values.get("head_dim") not in (None, decoder.head_dim):
        raise UserError(f"{path}: head_dim must be {decoder.head_dim}, found {values['head_dim']}.")
    kept = {name: values[name] for name in _KEPT if values.get(name) is not None}
    return decoder, values["vocab_size"], bool(values.get("tie_word_embeddings", False)), kept


def qwen2_values(decoder: DecoderConfig, vocab_size: int, *, tied: bool, dtype: str, kept: dict) -> dict[str, Any]:
    """config.json of a Qwen2ForCausalLM; RoPE in the words of transformers 4 and of 5."""
    return {
        **{theirs: getattr(decoder, ours) for ours, theirs in _NAMES.items()},
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "dtype": dtype,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "rms_norm_eps": decoder.norm_eps,
        "rope_parameters": {"rope_theta": decoder.rope_theta, "rope_type": "default"},
        "rope_theta": decoder.rope_theta,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_sliding_window": False,
        "vocab_size": vocab_size,
        **kept,
    }
