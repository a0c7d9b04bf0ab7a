"""What our arrays are called in Hugging Face's and the reference's files: one table per format, read both ways.

A kernel of ours has its input axes first, a torch weight is [out, in]. So an array is flattened to two axes, inputs
and outputs, and transposed; `inputs` says how many of our leading axes are inputs.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Shaped

from ualm_jax.errors import UserError
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.ualm import abstract_model
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.vocabulary import Vocabulary


class Tensor(NamedTuple):
    """inputs: 0 for an array that is only flattened, None for one that is kept as it is."""

    hf: str  # "{layer}" is the layer's number
    ours: str  # path in the model; under decoder.layers the layers are stacked on a leading axis
    inputs: int | None


class Format(NamedTuple):
    """A format in which others store the language model.

    embed, head: its tables of token rows [rows, D]. Ours are `embed` [V, D], and text_head [D, .] and
        audio_head [D, Q, .], which together are a table [V, D] transposed.
        A head of None is a tied one: there the embedding serves as head too, and we hold it twice.
    text_only: its rows are our text ids alone, not the whole vocabulary.
    """

    tensors: tuple[Tensor, ...]
    text_only: bool
    embed: str = "model.embed_tokens.weight"
    head: str | None = "lm_head.weight"

    def rows(self, vocabulary: Vocabulary) -> tuple[int, int]:
        """First and last + 1 of our rows that its tables hold."""
        return (vocabulary.text_start, vocabulary.audio_start) if self.text_only else (0, vocabulary.size)


DECODER = (
    Tensor("model.layers.{layer}.input_layernorm.weight", "decoder.layers.attention_norm", 0),
    Tensor("model.layers.{layer}.self_attn.q_proj.weight", "decoder.layers.attention.q_kernel", 1),
    Tensor("model.layers.{layer}.self_attn.q_proj.bias", "decoder.layers.attention.q_bias", 0),
    Tensor("model.layers.{layer}.self_attn.k_proj.weight", "decoder.layers.attention.k_kernel", 1),
    Tensor("model.layers.{layer}.self_attn.k_proj.bias", "decoder.layers.attention.k_bias", 0),
    Tensor("model.layers.{layer}.self_attn.v_proj.weight", "decoder.layers.attention.v_kernel", 1),
    Tensor("model.layers.{layer}.self_attn.v_proj.bias", "decoder.layers.attention.v_bias", 0),
    Tensor("model.layers.{layer}.self_attn.o_proj.weight", "decoder.layers.attention.o_kernel", 3),
    Tensor("model.layers.{layer}.post_attention_layernorm.weight", "decoder.layers.mlp_norm", 0),
    Tensor("model.layers.{layer}.mlp.gate_proj.weight", "decoder.layers.mlp.gate", 1),
    Tensor("model.layers.{layer}.mlp.up_proj.weight", "decoder.layers.mlp.up", 1),
    Tensor("model.layers.{layer}.mlp.down_proj.weight", "decoder.layers.mlp.down", 1),
    Tensor("model.norm.weight", "decoder.norm", 0),
)
STREAMS = (Tensor("stream_emb.weight", "stream_embed", None),)
ADAPTER = (
    Tensor("adaptor.continuous_audio.weight", "adapter.kernel", 1),
    Tensor("adaptor.continuous_audio.bias", "adapter.bias", 0),
)
TABLES = ("embed", "text_head", "audio_head")

QWEN2 = Format(DECODER, text_only=True)
QWEN2_EXTENDED = Format(DECODER, text_only=False)


def reference(architecture: Architecture) -> Format:
    """The reference's state dict, without its codec and encoder. Raises UserError for an adapter it does not have."""
    if architecture.feature_width is not None and architecture.adapter_layers != 1:
        raise UserError(
            f"the reference's adapter has one layer, model.adapter_layers is {architecture.adapter_layers}."
        )
    return Format(DECODER + STREAMS + (() if architecture.feature_width is None else ADAPTER), text_only=False)


def to_ours(tensor: Tensor, value: Shaped[np.ndarray, "..."], shape: tuple[int, ...]) -> Shaped[np.ndarray, "..."]:
    """One of their tensors (of one layer) as our array of `shape`."""
    return (transpose(value) if tensor.inputs else value).reshape(shape)


def to_hf(tensor: Tensor, value: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The inverse of `to_ours`."""
    if tensor.inputs:
        return transpose(value.reshape(_inputs(tensor, value.shape), -1))
    return value.reshape(hf_shape(tensor, value.shape))


def transpose(value: Shaped[np.ndarray, "I O"]) -> Shaped[np.ndarray, "O I"]:
    """The transpose, contiguous. In blocks: numpy alone misses the cache on every row and takes thrice as long."""
    result = np.empty(value.shape[::-1], value.dtype)
    for start in range(0, len(value), 64):
        result[:, start : start + 64] = value[start : start + 64].T
    return result


def hf_shape(tensor: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a tensor has in the format, where ours (of one layer) has `shape`."""
    if tensor.inputs is None:
        return shape
    size = math.prod(shape)
    if tensor.inputs == 0:
        return (size,)
    inputs = _inputs(tensor, shape)
    return (size // inputs, inputs)


def our_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Shape of every array of the model, by path; read from the model itself."""
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        _, state = abstract_model(architecture, Execution())
    return {".".join(path): leaf.shape for path, leaf in nnx.to_flat_state(state)}


def hf_tensors(form: Format, architecture: Architecture) -> dict[str, tuple[Tensor, int | None]]:
    """Every tensor of a format that is no table, by its name: its entry and its layer."""
    found: dict[str, tuple[Tensor, int | None]] = {}
    for tensor in form.tensors:
        layers = range(architecture.decoder.num_layers) if "{layer}" in tensor.hf else [None]
        found |= {tensor.hf.format(layer=layer): (tensor, layer) for layer in layers}
    return found


def hf_shapes(form: Format, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Every tensor name of a format and its shape, tables first."""
    ours = our_shapes(architecture)
    first, last = form.rows(architecture.vocabulary)
    shapes = {name: (last - first, architecture.decoder.width) for name in (form.embed, form.head) if name}
    for name, (tensor, layer) in hf_tensors(form, architecture).items():
        shape = ours[tensor.ours]
        shapes[name] = hf_shape(tensor, shape if layer is None else shape[1:])
    return shapes


def _inputs(tensor: Tensor, shape: tuple[int, ...]) -> int:
    return math.prod(shape[: tensor.inputs])
