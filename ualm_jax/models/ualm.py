"""UALM: the decoder between a sum of stream embeddings and one head shared by the streams.

A position's embedding is the sum of its S tokens' rows (id 0 adds nothing), or a projected audio frame where
a clip stands. Stream s > 0 is predicted from the hidden state plus a learnt stream embedding.
Source: the public UALM code (`models/ualm/lm/parallel.py`). Its one head [V, D] is held here in two parts,
the rows of special tokens and text and the rows of the codebooks: only stream 0 in training needs both.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ualm_jax.models import params
from ualm_jax.models.attention import AttentionSpec
from ualm_jax.models.config import UALMConfig
from ualm_jax.models.decoder import Decoder
from ualm_jax.parallel.sharding import reshard, spec
from ualm_jax.tokens.types import Batch

_INIT_STD = 0.02


class UALM(nnx.Module):
    """See the module's text. Parameters are split as `parallel/sharding.py` says; a mesh must be set."""

    def __init__(self, config: UALMConfig, rngs: nnx.Rngs):
        self.config = config
        D, vocabulary, dtype = config.decoder.width, config.vocabulary, jnp.dtype(config.param_dtype)
        normal = dict(std=_INIT_STD, dtype=dtype)
        codebooks = (D, vocabulary.num_codebooks, vocabulary.stream_size)
        self.embed = params.normal(rngs, (vocabulary.size, D), (None, "embed_row"), **normal)
        self.decoder = Decoder(config.decoder, rngs, dtype)
        self.stream_embed = params.normal(rngs, (vocabulary.num_streams, D), (None, None), **normal)
        self.text_head = params.normal(rngs, (D, vocabulary.audio_start), ("embed", "vocab"), **normal)
        self.audio_head = params.normal(rngs, codebooks, ("embed", "codebooks", None), **normal)
        self.adapter = nnx.data(
            None if config.feature_width is None else Adapter(config.feature_width, D, rngs, dtype)
        )

    def __call__(self, batch: Batch) -> Float[Array, "B T D"]:
        """Final hidden states of every position."""
        x = self.embed_batch(batch)
        return self.decoder(x, batch.positions, AttentionSpec(batch.segment_ids), self.config.remat)

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
        table = reshard(self.embed.astype(jnp.dtype(self.config.compute_dtype)), None, "embed_row_gathered")
        rows = table.at[tokens].get(out_sharding=spec("batch", None, None, "embed_row_gathered"))
        rows = jnp.where((tokens != 0)[..., None], rows, 0)
        total = jnp.sum(rows.astype(jnp.float32), axis=2).astype(rows.dtype)
        return reshard(total, "batch", None, None)

    def stream_states(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T S1 D"]:
        """What streams 1 to S - 1 are predicted from; stream 0 is predicted from `hidden` itself."""
        return hidden[:, :, None, :] + self.stream_embed[...][1:].astype(hidden.dtype)


class Adapter(nnx.Module):
    """Projects continuous audio features to the width of the decoder."""

    def __init__(self, feature_width: int, width: int, rngs: nnx.Rngs, dtype):
        self.kernel = params.normal(rngs, (feature_width, width), (None, "embed"), std=_INIT_STD, dtype=dtype)
        self.bias = params.constant(0.0, (width,), (None,), dtype=dtype)

    def __call__(self, features: Float[Array, "B C A"]) -> Float[Array, "B C D"]:
        kernel, bias = self.kernel.astype(features.dtype), self.bias.astype(features.dtype)
        projected = jnp.einsum("bca,ad->bcd", features, kernel, out_sharding=spec("batch", None, None))
        return projected + bias
