"""The Whisper-type transformer that both audio encoders are made of.

Arrays are [B, T, D]: B windows (or chunks) split over the batch axes of the mesh, T time, D model.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ualm_jax.models.attention import AttentionSpec, attend
from ualm_jax.models.audio_encoder.config import EncoderConfig
from ualm_jax.models.params import constant, normal
from ualm_jax.parallel.sharding import reshard, spec

INIT_STD = 0.02


class Linear(nnx.Module):
    """x @ kernel + bias; `axes` are the kernel's logical axes, "embed" being a whole axis in activations."""

    def __init__(self, in_dim: int, out_dim: int, axes: tuple, dtype: str, rngs: nnx.Rngs, bias: bool = True):
        self.out_axis = None if axes[1] == "embed" else axes[1]
        self.kernel = normal(rngs, (in_dim, out_dim), axes, std=INIT_STD, dtype=dtype)
        self.bias = constant(0.0, (out_dim,), (self.out_axis,), dtype=dtype) if bias else None

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B T O"]:
        out_sharding = spec("batch", None, self.out_axis)
        y = jnp.einsum("bti,io->bto", x, self.kernel.astype(x.dtype), out_sharding=out_sharding)
        return y if self.bias is None else y + self.bias.astype(x.dtype)


class Conv(nnx.Module):
    """Convolution over time, kernel 3, one zero on each side: kernel [3, in, out]."""

    def __init__(self, in_dim: int, out_dim: int, stride: int, dtype: str, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = normal(rngs, (3, in_dim, out_dim), (None, None, "embed"), std=INIT_STD, dtype=dtype)
        self.bias = constant(0.0, (out_dim,), (None,), dtype=dtype)

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B t O"]:
        y = jax.lax.conv_general_dilated(
            x,
            reshard(self.kernel.astype(x.dtype), None, None, None),
            window_strides=(self.stride,),
            padding=((1, 1),),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return y + self.bias.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm in float32, eps 1e-5."""

    def __init__(self, dim: int, dtype: str):
        self.scale = constant(1.0, (dim,), (None,), dtype=dtype)
        self.bias = constant(0.0, (dim,), (None,), dtype=dtype)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return (y * self.scale.astype(jnp.float32) + self.bias.astype(jnp.float32)).astype(x.dtype)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU with the error function, not its tanh approximation."""
    return jax.nn.gelu(x, approximate=False)


class EncoderLayer(nnx.Module):
    """Pre-norm transformer layer; the key projection has no bias."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        dim, dtype = config.width, config.param_dtype
        self.head_dim = config.head_dim
        self.attention_norm = LayerNorm(dim, dtype)
        self.query = Linear(dim, dim, ("embed", "kv_heads"), dtype, rngs)
        self.key = Linear(dim, dim, ("embed", "kv_heads"), dtype, rngs, bias=False)
        self.value = Linear(dim, dim, ("embed", "kv_heads"), dtype, rngs)
        self.output = Linear(dim, dim, ("kv_heads", "embed"), dtype, rngs)
        self.mlp_norm = LayerNorm(dim, dtype)
        self.up = Linear(dim, config.mlp_dim, ("embed", "mlp"), dtype, rngs)
        self.down = Linear(config.mlp_dim, dim, ("mlp", "embed"), dtype, rngs)

    def __call__(self, x: Float[Array, "B T D"], attention: AttentionSpec) -> Float[Array, "B T D"]:
        shape = (*x.shape[:2], x.shape[2] // self.head_dim, self.head_dim)
        split = spec("batch", None, "kv_heads", None)
        y = self.attention_norm(x)
        q, k, v = (part(y).reshape(shape, out_sharding=split) for part in (self.query, self.key, self.value))
        y = attend(q[:, :, :, None], k, v, attention)  # one query head for each key head
        x = x + self.output(y.reshape(x.shape, out_sharding=spec("batch", None, "kv_heads")))
        return x + self.down(gelu(self.up(self.mlp_norm(x))))


def make_layers(config: EncoderConfig, rngs: nnx.Rngs) -> EncoderLayer:
    """All layers as one, every parameter with a leading axis of `num_layers`."""
    return nnx.vmap(lambda r: EncoderLayer(config, r))(rngs.split(config.num_layers))


def run_layers(layers: EncoderLayer, x: Float[Array, "B T D"], heard: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
    """Sends `x` through the stacked layers; each frame that is `heard` attends to all such frames, in both directions.

    Where the encoder is trained, the backward pass computes a layer's insides again.
    """
    attention = AttentionSpec(heard.astype(jnp.int32), causal=False)
    body = jax.checkpoint(lambda x, layer: (layer(x, attention), None), prevent_cse=False)
    return jax.lax.scan(body, x, layers)[0]


def average_pairs(x: Float[Array, "B T D"]) -> Float[Array, "B t D"]:
    """Mean of frames 2i and 2i + 1; an odd last frame is dropped."""
    even = x[:, : x.shape[1] // 2 * 2]
    return (even[:, ::2] + even[:, 1::2]) / 2


def silence_after(x: Float[Array, "B T D"], counts) -> Float[Array, "B T D"]:
    """Zeros in place of the frames from `counts` [B] on."""
    return jnp.where(jnp.arange(x.shape[1])[None, :, None] < counts[:, None, None], x, 0)
