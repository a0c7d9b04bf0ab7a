"""What a model is: sizes that check themselves, and how many parameters they make."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, OneOf, Positive, check_fields
from ualm_jax.mapping import from_mapping, renamed
from ualm_jax.tokens.vocabulary import Vocabulary

DTYPES = ("float32", "bfloat16")
ATTENTION = ("auto", "xla", "splash", "tokamax", "pallas")
DECODE_ATTENTION = ("xla", "pallas")
REMAT_POLICIES = ("none", "full", "dots", "save_attention", "offload")
AUTO_REMAT = "auto"  # becomes one of them when a step is made
NORM_GRADIENTS = ("exact", "bounded")
LAYER_PRODUCTS = ("compute_dtype", "fp8")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a Qwen2.5 decoder (Hugging Face `Qwen2Config` names beside each)."""

    num_layers: Count  # num_hidden_layers
    width: Count  # hidden_size, D
    num_heads: Count  # num_attention_heads, N
    num_kv_heads: Count  # num_key_value_heads, K
    mlp_dim: Count  # intermediate_size, F
    rope_theta: Positive = 1e6
    norm_eps: Positive = 1e-6

    def __post_init__(self):
        check_fields(self, "model.decoder")
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"model.decoder.num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})."
            )
        if self.width % self.num_heads or self.head_dim % 2:
            raise UserError(
                f"model.decoder.width ({self.width}) must be num_heads ({self.num_heads}) times an even head_dim."
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def queries_per_kv_head(self) -> int:
        return self.num_heads // self.num_kv_heads

    def num_params(self) -> int:
        D, F = self.width, self.mlp_dim
        N, K, H = self.num_heads, self.num_kv_heads, self.head_dim
        attention = D * (N + 2 * K) * H + (N + 2 * K) * H + N * H * D
        return self.num_layers * (attention + 3 * D * F + 2 * D) + D


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a checkpoint is: a decoder that reads and writes the unified vocabulary in S streams. All of it is identity.

    feature_width: width of the audio features the adapter reads; None for a model that cannot listen.
    adapter_layers: 1 for a linear adapter, as the reference's; 2 for linear, GELU, linear, as Audio Flamingo 3's.
    """

    decoder: DecoderConfig
    vocabulary: Vocabulary
    feature_width: Count | None = None
    adapter_layers: Annotated[int, Bounds(at_least=1, at_most=2)] = 1

    def __post_init__(self):
        check_fields(self, "model")

    def num_params(self) -> int:
        """Parameters of the whole model, by formula."""
        D = self.decoder.width
        embeddings = 2 * self.vocabulary.size * D + self.vocabulary.num_streams * D
        widths = () if self.feature_width is None else (self.feature_width, D)[: self.adapter_layers]
        adapter = sum((width + 1) * D for width in widths)
        return self.decoder.num_params() + embeddings + adapter


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a model is computed. A checkpoint can be continued, or used, with any of it.

    param_dtype, compute_dtype: "float32" or "bfloat16"; norms, RoPE, softmax, logits and loss are always
        float32.
    remat: what the backward pass keeps of each layer: "none" recomputes nothing, "full" recomputes the layer,
        "dots" keeps matrix products, "save_attention" keeps what attention returns; "offload" is "full" with the
        layers' inputs in the memory of the host meanwhile. "auto" takes, when training begins, the one of the first
        four that recomputes least and still fits the device by the compiler's figure; each that is tried is compiled.
    unroll_layers: the layers one after the other in the training program instead of a loop over them. What a loop
        keeps for the backward pass it stacks, which copies it; but the program takes twice as long to compile. Not with
        mesh.fsdp above 1: each device could gather the weights of all layers at once.
    loss_chunk: columns of the text vocabulary whose logits exist at once, at every position of a device; Qwen2.5 text
        makes 152 192 columns (7b: 152 320) with the special ones: 41 times 3 712 (34 times 4 480).
    attention: who computes it (`models/attention/`): "auto" takes what suits the device, "xla", "splash" (TPU),
        "tokamax" or "pallas" (GPU; the second skips other documents also in the backward pass).
    decode_attention: who computes it in a step of decoding: "xla", or "pallas", one kernel for NVIDIA GPUs
        (`models/attention/decode_kernel.py`) that has not run on a card yet.
    norm_gradient: what passes a norm backwards: "exact", as in the reference, or "bounded": where a position is all but
        zero, as with a dropped condition, gradients grow by a factor of 50 at most instead of 1 000.
    layer_products: what the layers' products multiply in training and its evaluation: numbers of compute_dtype, or
        "fp8", of 8 bits (`models/fp8.py`), an experiment. What opens a model to use it takes compute_dtype.
    """

    param_dtype: Annotated[str, OneOf(DTYPES)] = "float32"
    compute_dtype: Annotated[str, OneOf(DTYPES)] = "bfloat16"
    remat: Annotated[str, OneOf((*REMAT_POLICIES, AUTO_REMAT))] = "none"
    unroll_layers: bool = False
    loss_chunk: Count = 3712
    attention: Annotated[str, OneOf(ATTENTION)] = "auto"
    decode_attention: Annotated[str, OneOf(DECODE_ATTENTION)] = "xla"
    norm_gradient: Annotated[str, OneOf(NORM_GRADIENTS)] = "exact"
    layer_products: Annotated[str, OneOf(LAYER_PRODUCTS)] = "compute_dtype"

    def __post_init__(self):
        check_fields(self, "execution")


def split_model(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of `Architecture` and of `Execution` out of one group, which is how version 0.1 stored them."""
    names = {field.name for field in dataclasses.fields(Execution)}
    return (
        {name: value for name, value in values.items() if name not in names},
        {name: value for name, value in values.items() if name in names},
    )


def read_model(values: Mapping[str, Any]) -> tuple[Architecture, Execution]:
    """The group "model" of ualm.json, of a run's config.json or of a checkpoint, as this version or 0.1 wrote it."""
    architecture, execution = split_model(renamed(values))
    return from_mapping(Architecture, architecture, "model"), from_mapping(Execution, execution, "execution")


def layer_bytes(architecture: Architecture, execution: Execution) -> int:
    """Weights of one layer in the compute dtype: what a device gathers at once."""
    decoder, width = architecture.decoder, {"float32": 4, "bfloat16": 2}[execution.compute_dtype]
    return (decoder.num_params() - decoder.width) // decoder.num_layers * width


QWEN2_5 = {
    "0.5b": DecoderConfig(num_layers=24, width=896, num_heads=14, num_kv_heads=2, mlp_dim=4864),
    "1.5b": DecoderConfig(num_layers=28, width=1536, num_heads=12, num_kv_heads=2, mlp_dim=8960),
    "3b": DecoderConfig(num_layers=36, width=2048, num_heads=16, num_kv_heads=2, mlp_dim=11008),
    "7b": DecoderConfig(num_layers=28, width=3584, num_heads=28, num_kv_heads=4, mlp_dim=18944),
}
"""Qwen2.5 sizes by name; their text tables have 151 936 rows (7b: 152 064)."""
