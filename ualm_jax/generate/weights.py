"""The weights of a model as decoding reads them, made once for many steps."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ualm_jax.models.decoder import Decoder, Layer
from ualm_jax.models.params import cast_floats
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.sharding import reshard, spec
from ualm_jax.tokens.vocabulary import EOS, EOT


class Weights(NamedTuple):
    """A model in the compute dtype, layer by layer, and its head in the parts that are sampled from.

    model: without its stack of layers, which `layers` holds one by one.
    codebooks, ends: columns of the head, of the codebooks and of the tokens that end a segment (eos, eot).
    bias: what each stream's embedding adds to the logits of every codebook.
    """

    model: UALM
    layers: list[Layer]
    codebooks: Float[Array, "D Q W"]
    ends: Float[Array, "D E"]
    bias: Float[Array, "S Q W"]


def make_weights(model: UALM) -> Weights:
    """The weights of `model`, which itself does not change. A mesh must be set.

    What is in the compute dtype already is shared with the model, layers only where they lie apart
    (`models.unstacked`).
    """
    dtype = jnp.dtype(model.execution.compute_dtype)
    layers = _layers(model.decoder, dtype)
    model = jax.tree.map(lambda leaf: leaf, model)
    model.decoder.layers = None
    return Weights(model, layers, *_sampled_from(model, dtype))


@functools.partial(jax.jit, static_argnames="dtype")
def _sampled_from(model: UALM, dtype) -> tuple[Array, Array, Array]:
    """`Weights.codebooks`, `ends` and `bias`."""
    codebooks = reshard(model.audio_head.astype(dtype), None, "codebooks", None)
    ends = reshard(special_head(model, (EOS, EOT)).astype(dtype), None, None)
    return codebooks, ends, reshard(model.stream_bias(dtype), None, None, None)


def _layers(decoder: Decoder, dtype) -> list[Layer]:
    """With matrices and biases in `dtype`: float32 ones would be read by every step."""
    if isinstance(decoder.layers, Layer):
        return _from_stack(decoder, dtype)
    return [_cast(layer, dtype) for layer in decoder.layers]


@functools.partial(jax.jit, static_argnames="dtype")
def _from_stack(decoder: Decoder, dtype) -> list[Layer]:
    return [_cast(layer, dtype) for layer in decoder.unstacked()]


def special_head(model: UALM, tokens: Sequence[int]) -> Float[Array, "D E"]:
    """The head's columns of these special tokens."""
    return model.text_head.at[:, jnp.array(tokens)].get(out_sharding=spec("embed", None))


def _cast(layer: Layer, dtype) -> Layer:
    products = nnx.Any(nnx.PathContains("attention"), nnx.PathContains("mlp"))
    scales = nnx.PathContains("scale")  # of 8-bit kernels, which are float32 until they have been multiplied
    structure, used, rest = nnx.split(layer, nnx.All(products, nnx.Not(scales)), ...)
    return nnx.merge(structure, cast_floats(used, dtype), rest)
