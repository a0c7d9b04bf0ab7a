"""HuBERT base (Hsu et al. 2021) as X-codec's semantic extractor: the mean over all hidden states.

Ported from the behaviour of `transformers` 5.23 `HubertModel` in evaluation: no dropout, no layer drop, no
time masking.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ualm_jax.codecs.xcodec.config import HubertConfig
from ualm_jax.codecs.xcodec.layers import conv, conv_length, layer_norm, linear, masked, valid

GROUP_NORM_EPS = 1e-5


def hubert_length(config: HubertConfig, samples):
    """Frames HuBERT makes from `samples` samples; an int, or an array of them. Not positive: too short."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = conv_length(samples, kernel, stride)
    return samples


def hubert_mean(
    params: dict, config: HubertConfig, wav: Float[Array, "B N"], lengths: Int[Array, "B"]
) -> Float[Array, "B T D"]:
    """Waveforms to the mean of the hidden states: the transformer's input and the output of each layer."""
    x = wav[:, :, None]
    for i, (kernel, stride) in enumerate(zip(params["convs"], config.conv_stride, strict=True)):
        x = conv(x, kernel, stride=stride)
        lengths = conv_length(lengths, kernel.shape[0], stride)
        if i == 0:
            x = _norm_over_time(x, lengths, **params["group_norm"])
        x = jax.nn.gelu(x, approximate=False)
    x = linear(layer_norm(x, **params["feature_norm"], eps=config.layer_norm_eps), **params["project"])

    taps = config.num_conv_pos_embeddings
    # An even kernel would make one frame too many at the end; HF drops it.
    padding = (taps // 2, taps - 1 - taps // 2)
    position = conv(
        masked(x, lengths), **params["position"], padding=padding, groups=config.num_conv_pos_embedding_groups
    )
    x = layer_norm(x + jax.nn.gelu(position, approximate=False), **params["norm"], eps=config.layer_norm_eps)

    keys = valid(lengths, x.shape[1])

    def step(carry, layer):
        x, total = carry
        x = _layer(layer, config, x, keys)
        return (x, total + x), None

    (_, total), _ = jax.lax.scan(step, (x, x), params["layers"])
    return total / (config.num_hidden_layers + 1)


def _norm_over_time(
    x: Float[Array, "B T C"], lengths: Int[Array, "B"], scale: Float[Array, "C"], bias: Float[Array, "C"]
) -> Float[Array, "B T C"]:
    """GroupNorm with one channel per group: each channel is normalised over the frames of its own clip."""
    frames = lengths[:, None, None].astype(x.dtype)
    centred = x - masked(x, lengths).sum(1, keepdims=True) / frames
    variance = (masked(centred, lengths) ** 2).sum(1, keepdims=True) / frames
    return centred * jax.lax.rsqrt(variance + GROUP_NORM_EPS) * scale + bias


def _layer(
    params: dict, config: HubertConfig, x: Float[Array, "B T D"], keys: Bool[Array, "B T"]
) -> Float[Array, "B T D"]:
    """One post-norm transformer layer, attending to valid frames only."""
    batch, frames, width = x.shape
    heads = config.num_attention_heads

    def split(name):
        return linear(x, **params[name]).reshape(batch, frames, heads, width // heads)

    query, key, value = split("query"), split("key"), split("value")
    scores = jnp.einsum("btnh,bsnh->bnts", query, key) * (width // heads) ** -0.5
    weights = jax.nn.softmax(jnp.where(keys[:, None, None, :], scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bnts,bsnh->btnh", weights, value).reshape(batch, frames, width)
    x = layer_norm(x + linear(mixed, **params["out"]), **params["attention_norm"], eps=config.layer_norm_eps)
    y = linear(jax.nn.gelu(linear(x, **params["up"]), approximate=False), **params["down"])
    return layer_norm(x + y, **params["output_norm"], eps=config.layer_norm_eps)
