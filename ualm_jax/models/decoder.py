"""The Qwen2.5 decoder: stacked layers under one scan.

Sources: Qwen2 in Hugging Face transformers (`modeling_qwen2.py`) for the maths; bias on q, k, v only.
Queries are kept as [K, G, H]: G query heads for each of the K key/value heads, so that splitting K over the
tensor axis splits both and no head is ever reshaped across devices.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ualm_jax.models import params
from ualm_jax.models.attention import AttentionSpec, attend, attend_cache
from ualm_jax.models.config import AUTO_REMAT, DecoderConfig, Execution
from ualm_jax.models.linear import apply_kernel
from ualm_jax.models.norm import rms_norm
from ualm_jax.models.rope import apply_rope, rope_tables
from ualm_jax.parallel.sharding import reshard, spec

_INIT_STD = 0.02


class KVCache(NamedTuple):
    """Keys and values of sequences, an array for each layer; T is how many positions there is room for.

    Heads stand before positions, so that what a head reads lies together.
    length: positions that each sequence holds, from 0 on; what is stored beyond them means nothing.
    """

    k: tuple[Float[Array, "B K T H"], ...]
    v: tuple[Float[Array, "B K T H"], ...]
    length: Int[Array, " B"]

    def with_room(self, free: int) -> "KVCache":
        """The cache with room for `free` more positions."""
        pad = ((0, 0), (0, 0), (0, free), (0, 0))
        return KVCache(*(tuple(jnp.pad(layer, pad) for layer in part) for part in (self.k, self.v)), self.length)


class Attention(nnx.Module):
    """Grouped-query self-attention."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, dtype):
        D, K, G, H = config.width, config.num_kv_heads, config.queries_per_kv_head, config.head_dim
        normal = dict(std=_INIT_STD, dtype=dtype)
        self.q_kernel = params.normal(rngs, (D, K, G, H), ("embed", "kv_heads", None, None), **normal)
        self.q_bias = params.constant(0.0, (K, G, H), ("kv_heads", None, None), dtype=dtype)
        self.k_kernel = params.normal(rngs, (D, K, H), ("embed", "kv_heads", None), **normal)
        self.k_bias = params.constant(0.0, (K, H), ("kv_heads", None), dtype=dtype)
        self.v_kernel = params.normal(rngs, (D, K, H), ("embed", "kv_heads", None), **normal)
        self.v_bias = params.constant(0.0, (K, H), ("kv_heads", None), dtype=dtype)
        self.o_kernel = params.normal(rngs, (K, G, H, D), ("kv_heads", None, None, "embed"), **normal)

    def qkv(self, x: Float[Array, "B T D"], fp8: bool):
        """Queries [B, T, K, G, H], keys and values [B, T, K, H]; nothing is rotated yet."""
        q = _project(x, self.q_kernel, self.q_bias, fp8)
        k = _project(x, self.k_kernel, self.k_bias, fp8)
        return q, k, _project(x, self.v_kernel, self.v_bias, fp8)

    def output(self, attended: Float[Array, "B T K G H"], fp8: bool) -> Float[Array, "B T D"]:
        heads = jnp.reshape(attended, (*attended.shape[:2], -1), out_sharding=spec("batch", None, "kv_heads"))
        return apply_kernel(heads, self.o_kernel, ("kv_heads", "embed"), inputs=3, fp8=fp8)


def _project(x: Float[Array, "B T D"], kernel, bias, fp8) -> Float[Array, "B T *heads"]:
    """x @ kernel [D, *heads] + bias [*heads]."""
    bias = bias.astype(x.dtype)
    heads = apply_kernel(x, kernel, ("embed", "kv_heads"), fp8=fp8)
    split = spec("batch", None, "kv_heads", *[None] * (bias.ndim - 1))
    return jnp.reshape(heads, (*x.shape[:2], *bias.shape), out_sharding=split) + bias


class MLP(nnx.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, dtype):
        D, F = config.width, config.mlp_dim
        normal = dict(std=_INIT_STD, dtype=dtype)
        self.gate = params.normal(rngs, (D, F), ("embed", "mlp"), **normal)
        self.up = params.normal(rngs, (D, F), ("embed", "mlp"), **normal)
        self.down = params.normal(rngs, (F, D), ("mlp", "embed"), **normal)

    def __call__(self, x: Float[Array, "B T D"], fp8: bool) -> Float[Array, "B T D"]:
        gate = apply_kernel(x, self.gate, ("embed", "mlp"), fp8=fp8)
        up = apply_kernel(x, self.up, ("embed", "mlp"), fp8=fp8)
        return apply_kernel(jax.nn.silu(gate) * up, self.down, ("mlp", "embed"), fp8=fp8)


class Layer(nnx.Module):
    """Pre-norm attention and MLP, each with its residual."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, dtype, norm_gradient: str):
        self.eps, self.norm_gradient = config.norm_eps, norm_gradient
        self.attention_norm = params.constant(1.0, (config.width,), (None,), dtype=dtype)
        self.attention = Attention(config, rngs, dtype)
        self.mlp_norm = params.constant(1.0, (config.width,), (None,), dtype=dtype)
        self.mlp = MLP(config, rngs, dtype)

    def __call__(self, x: Float[Array, "B T D"], attention, fp8: bool = False):
        """`attention` turns (q, k, v), not rotated, into what was attended, and what else the caller wants to keep.

        fp8: see `models.fp8`.
        """
        attended, kept = attention(*self.attention.qkv(self._norm(x, self.attention_norm), fp8))
        x = x + self.attention.output(attended, fp8)
        x = x + self.mlp(self._norm(x, self.mlp_norm), fp8)
        return x, kept

    def _norm(self, x: Float[Array, "B T D"], scale: nnx.Param) -> Float[Array, "B T D"]:
        return rms_norm(x, scale[...], self.eps, self.norm_gradient)


_REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names("product"),
    "save_attention": jax.checkpoint_policies.save_only_these_names("attention"),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer_input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


class Decoder(nnx.Module):
    """Embeddings in, final hidden states out. `layers` is one Layer whose arrays have a leading axis L, or a list of
    layers without it (`unstacked.take_layers_apart`)."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, execution: Execution):
        dtype, norm_gradient = jnp.dtype(execution.param_dtype), execution.norm_gradient
        self.config, self.norm_gradient = config, norm_gradient
        self.attention, self.decode_attention = execution.attention, execution.decode_attention
        self.layers = nnx.vmap(lambda layer_rngs: Layer(config, layer_rngs, dtype, norm_gradient))(
            rngs.split(config.num_layers)
        )
        self.norm = params.constant(1.0, (config.width,), (None,), dtype=dtype)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        attention: AttentionSpec,
        execution: Execution,
    ) -> Float[Array, "B T D"]:
        """Training: every position at once."""
        cos, sin = self._rope(positions)
        attention = attention.with_ranges()

        def attend_all(q, k, v):
            return attend(apply_rope(q, cos, sin), apply_rope(k, cos, sin), v, attention, self.attention), None

        def step(x, layer):
            return layer(checkpoint_name(x, "layer_input"), attend_all, execution.layer_products == "fp8")

        if execution.remat not in ("none", AUTO_REMAT):  # "auto" is replaced before training
            # Inside a scan nothing can be merged across iterations, so the guard against it only costs time.
            guarded = execution.unroll_layers or not isinstance(self.layers, Layer)
            step = jax.checkpoint(step, policy=_REMAT[execution.remat], prevent_cse=guarded)
        if isinstance(self.layers, Layer):
            x, _ = jax.lax.scan(step, x, self.layers, unroll=execution.unroll_layers)
        else:
            for layer in self.layers:
                x, _ = step(x, layer)
        return rms_norm(x, self.norm[...], self.config.norm_eps, self.norm_gradient)

    def unstacked(self) -> list[Layer]:
        """Every layer by itself: what `prefill` and `decode` read, made once before them.

        They do not scan the stack: a step of decoding is bound by memory bandwidth, and taking a layer out of the stack
        would read and write its weights once more.
        """
        if not isinstance(self.layers, Layer):
            return list(self.layers)
        structure, stacked = nnx.split(self.layers)
        return [
            nnx.merge(structure, jax.tree.map(lambda array, index=index: array[index], stacked))
            for index in range(self.config.num_layers)
        ]

    def prefill(
        self, layers: list[Layer], x: Float[Array, "B T D"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Reads right-padded prompts of these lengths; returns hidden states and a cache with room for T positions."""
        index = jnp.arange(x.shape[1])
        inside = reshard(index < lengths[:, None], "batch", None)
        attention = AttentionSpec(segment_ids=inside.astype(jnp.int32))
        cos, sin = self._rope(jnp.broadcast_to(index, x.shape[:2]))

        def attend_all(index, q, k, v):
            q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
            return attend(q, k, v, attention, self.attention), (k.swapaxes(1, 2), v.swapaxes(1, 2))

        hidden, keys, values = self._run(layers, x, attend_all)
        return hidden, KVCache(keys, values, lengths)

    def extend(
        self, layers: list[Layer], x: Float[Array, "B T D"], lengths: Int[Array, " B"], cache: KVCache
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Reads right-padded continuations of these lengths behind what `cache` holds of each sequence.

        A sequence must have room for its `lengths` positions; padding that does not fit is left out.
        """
        rope = self._rope(cache.length[:, None] + jnp.arange(x.shape[1]))

        def attend_to_all_before(index, q, k, v):
            held = cache.k[index], cache.v[index], cache.length
            attended, *kept = attend_cache(q, k, v, rope, *held, self.decode_attention)
            return attended, kept

        hidden, keys, values = self._run(layers, x, attend_to_all_before)
        return hidden, KVCache(keys, values, cache.length + lengths)

    def decode(
        self, layers: list[Layer], x: Float[Array, "B 1 D"], cache: KVCache
    ) -> tuple[Float[Array, "B 1 D"], KVCache]:
        """One more position for every sequence."""
        return self.extend(layers, x, jnp.ones_like(cache.length), cache)

    def _run(self, layers, x, attention):
        """The layers one after the other; `attention(index, q, k, v)` also returns the keys and values to keep."""
        kept = []
        for index, layer in enumerate(layers):
            x, pair = layer(x, functools.partial(attention, index))
            kept.append(pair)
        keys, values = zip(*kept, strict=True)
        return rms_norm(x, self.norm[...], self.config.norm_eps), keys, values

    def _rope(self, positions):
        return rope_tables(positions, self.config.head_dim, self.config.rope_theta)
