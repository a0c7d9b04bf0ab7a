"""Qwen2's config.json, read and written."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ualm_jax.errors import UserError
from ualm_jax.models.config import DecoderConfig
from ualm_jax.weights.hf_folder import read_json

_SIZES = {
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "mlp_dim": "intermediate_size",
}
# What the decoder computes; a config may ask for something else, and then it is refused.
_FIXED = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "transformers_weights": None,
}
# What it does not decide, but who generates with transformers wants back.
_KEPT = ("max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


class Qwen2Folder(NamedTuple):
    """What the JSON files of a Qwen2 folder say.

    text_size: rows of the token table. tied: whether the embedding serves as head.
    kept: for an export, what no weight decides: "config" and "generation_config".
    """

    decoder: DecoderConfig
    text_size: int
    tied: bool
    kept: dict[str, dict[str, Any]]


def read_qwen2(directory: pathlib.Path) -> Qwen2Folder:
    """Raises UserError for another architecture, or a field that asks for what the decoder does not compute."""
    path = directory / "config.json"
    values = read_json(path)
    if (directory / "vocabulary.json").is_file():
        raise UserError(
            f"{directory}: was exported with --vocabulary extended, so its ids are not those of a text model; use the "
            f"checkpoint it was exported from."
        )
    for name, expected in _FIXED.items():
        if values.get(name, expected) not in (None, expected):
            found = values[name]
            raise UserError(f"{path}: {name} must be {expected!r}, found {found!r:.60}; only plain Qwen2 can be read.")
    layers = values.get("layer_types") or []
    if other := sorted({str(kind) for kind in layers} - {"full_attention"}):
        raise UserError(f"{path}: layer_types must all be 'full_attention', found {other[0]!r}.")
    for name in (*_SIZES.values(), "vocab_size", "model_type"):
        if name not in values:
            raise UserError(f"{path}: {name} is missing; expected the configuration of a Qwen2 model.")
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    for name in (*_SIZES.values(), "vocab_size"):
        if type(values[name]) is not int or values[name] < 1:
            raise UserError(f"{path}: {name} must be a positive whole number, found {values[name]!r}.")
    theta, eps = _rope_theta(path, values), _positive(path, "rms_norm_eps", values.get("rms_norm_eps", 1e-6))
    sizes = {ours: values[hf] for ours, hf in _SIZES.items()}
    try:
        decoder = DecoderConfig(**sizes, rope_theta=theta, norm_eps=eps)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if values.get("head_dim") not in (None, decoder.head_dim):
        raise UserError(f"{path}: head_dim must be {decoder.head_dim}, found {values['head_dim']}.")
    kept = {"config": {name: values[name] for name in _KEPT if values.get(name) is not None}}
    if (directory / "generation_config.json").is_file():
        kept["generation_config"] = read_json(directory / "generation_config.json")
    return Qwen2Folder(decoder, values["vocab_size"], bool(values.get("tie_word_embeddings") or False), kept)


def _rope_theta(path: pathlib.Path, values: Mapping[str, Any]) -> float:
    """RoPE's base. Raises UserError for positions that are scaled, in whatever words.

    Read as transformers 5 does: `rope_scaling`, of version 4, before `rope_parameters`; the fields themselves or one
    group of them per layer type; "rope_type" before "type", which is older; theta inside before theta beside.
    """
    name = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(name) or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"{path}: {name} must be an object, found {rope!r}.")
    if "full_attention" in rope:
        name, rope = f"{name}.full_attention", rope["full_attention"] or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        key = "rope_type" if "rope_type" in rope else "type"
        raise UserError(f"{path}: {name}.{key} must be 'default', found {kind!r}; scaled positions are not computed.")
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        raise UserError(f"{path}: {name}.partial_rotary_factor must be 1, found {rope['partial_rotary_factor']!r}.")
    theta = rope.get("rope_theta", values.get("rope_theta", 10000.0))  # the default of Qwen2Config
    return _positive(path, "rope_theta", theta)


def _positive(path: pathlib.Path, name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise UserError(f"{path}: {name} must be a positive number, found {value!r}.")
    return float(value)


def qwen2_values(decoder: DecoderConfig, vocab_size: int, *, tied: bool, dtype: str, kept: dict) -> dict[str, Any]:
    """config.json of a Qwen2ForCausalLM; RoPE in the words of transformers 4 and of 5."""
    return {
        **{hf: getattr(decoder, ours) for ours, hf in _SIZES.items()},
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
