"""UALM: the decoder between a sum of stream embeddings and one head shared by the streams.

A position's embedding is the sum of its S tokens' rows (id 0 adds nothing), or a projected audio frame where
a clip stands. Stream s > 0 is predicted from the hidden state plus a learnt stream embedding.
Source: the public UALM code (`models/ualm/lm/parallel.py`). Its one head [V, D] is held here in two parts,
the rows of special tokens and text and the rows of the codebooks: only stream 0 in training needs both.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ualm_jax.models import params
from ualm_jax.models.attention import AttentionSpec
from ualm_jax.models.audio_encoder.encoder import encode_audio
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.decoder import Decoder
from ualm_jax.parallel.sharding import reshard, spec
from ualm_jax.tokens.types import Batch

_INIT_STD = 0.02


class UALM(nnx.Module):
    """See the module's text. Parameters are split as `parallel/sharding.py` says; a mesh must be set.

    encoder: None, or the audio encoder that a training run sets, to turn a batch's mel windows into features.
    """

    def __init__(self, architecture: Architecture, execution: Execution, rngs: nnx.Rngs):
        self.architecture, self.execution = architecture, execution
        D, vocabulary = architecture.decoder.width, architecture.vocabulary
        dtype = jnp.dtype(execution.param_dtype)
        normal = dict(std=_INIT_STD, dtype=dtype)
        codebooks = (D, vocabulary.num_codebooks, vocabulary.stream_size)
        self.embed = params.normal(rngs, (vocabulary.size, D), (None, "embed_row"), **normal)
        self.decoder = Decoder(architecture.decoder, rngs, execution)
        self.stream_embed = params.normal(rngs, (vocabulary.num_streams, D), (None, None), **normal)
        self.text_head = params.normal(rngs, (D, vocabulary.audio_start), ("embed", "vocab"), **normal)
        self.audio_head = params.normal(rngs, codebooks, ("embed", "codebooks", None), **normal)
        self.adapter = nnx.data(None if architecture.feature_width is None else Adapter(architecture, rngs, dtype))
        self.encoder = nnx.data(None)

    def __call__(self, batch: Batch) -> Float[Array, "B T D"]:
        """Final hidden states of every position."""
        x = self.embed_batch(encode_audio(self.encoder, batch))
        return self.decoder(x, batch.positions, AttentionSpec(batch.segment_ids), self.execution)

    def embed_batch(self, batch: Batch) -> Float[Array, "B T D"]:
        x = self.embed_tokens(batch.tokens)
        if batch.features is None:
            return x
        if self.adapter is None:
            raise ValueError("the batch holds audio features, but the model has no adapter")
        projected = self.adapter(batch.features.astype(x.dtype))
        index = jnp.maximum(batch.feature_index, 0)[:, :, None]
        frames = jnp.take_along_axis(projected, index, axis=1)
        return jnp.where(batch.feature_index[:, :, None] >= 0, frames, x)

    def embed_tokens(self, tokens: Int[Array, "B T S"]) -> Float[Array, "B T D"]:
        # Sums travel, not the table: each device looks up its columns of the width for all rows that share its
        # part of the batch, and the sums are exchanged. Float32 until then, so that the gradient is summed in it.
        def local(table, tokens):
            tokens = jax.lax.all_gather(tokens, "fsdp", axis=0, tiled=True)
            rows = jnp.where((tokens != 0)[..., None], table[tokens].astype(jnp.float32), 0)
            total = jnp.sum(rows, axis=2).astype(self.execution.compute_dtype)
            total = jax.lax.all_to_all(total, "fsdp", split_axis=0, concat_axis=2, tiled=True)
            return jax.lax.all_gather(total, "tensor", axis=2, tiled=True)

        return jax.shard_map(
            local,
            in_specs=(spec(None, "embed_row"), spec("batch", None, None)),
            out_specs=spec("batch", None, None),
            check_vma=False,
        )(self.embed[...], reshard(tokens, "batch", None, None))

    def stream_states(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T S1 D"]:
        """What streams 1 to S - 1 are predicted from; stream 0 is predicted from `hidden` itself."""
        return hidden[:, :, None, :] + self.stream_embed[...][1:].astype(hidden.dtype)

    def stream_bias(self, dtype) -> Float[Array, "S Q W"]:
        """What a stream's embedding adds to every codebook's logits; nothing for stream 0. Products in `dtype`."""
        embed = self.stream_embed[...].at[0].set(0).astype(dtype)
        return jnp.einsum(
            "sd,dqw->sqw",
            embed,
            reshard(self.audio_head.astype(dtype), None, "codebooks", None),
            preferred_element_type=jnp.float32,
        )


def abstract_model(architecture: Architecture, execution: Execution) -> tuple[nnx.GraphDef, nnx.State]:
    """What `nnx.merge` makes a UALM of: its structure, and its parameters as shapes, dtypes and shardings."""
    return nnx.split(jax.eval_shape(lambda: UALM(architecture, execution, nnx.Rngs(0))))


class Adapter(nnx.Module):
    """Projects continuous audio features to the width of the decoder."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs, dtype):
        A, D = architecture.feature_width, architecture.decoder.width
        normal = dict(std=_INIT_STD, dtype=dtype)
        self.kernel = params.normal(rngs, (A, D), (None, "embed"), **normal)
        self.bias = params.constant(0.0, (D,), (None,), dtype=dtype)
        self.deep = architecture.adapter_layers == 2
        if self.deep:
            self.out_kernel = params.normal(rngs, (D, D), (None, "embed"), **normal)
            self.out_bias = params.constant(0.0, (D,), (None,), dtype=dtype)

    def __call__(self, features: Float[Array, "B C A"]) -> Float[Array, "B C D"]:
        x = _linear(features, self.kernel[...], self.bias[...])
        if self.deep:
            x = _linear(jax.nn.gelu(x, approximate=False), self.out_kernel[...], self.out_bias[...])
        return x


def _linear(x: Float[Array, "B C I"], kernel: Float[Array, "I O"], bias: Float[Array, " O"]) -> Float[Array, "B C O"]:
    kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
    return jnp.einsum("bci,io->bco", x, kernel, out_sharding=spec("batch", None, None)) + bias
