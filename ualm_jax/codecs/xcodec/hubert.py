"""HuBERT base (Hsu et al. 2021) as X-codec's semantic extractor: the mean over all hidden states.

Ported from the behaviour of `transformers` 5.23 `HubertModel` in evaluation: no dropout, no layer drop, no
time masking.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ualm_jax.codecs.xcodec.config import HubertConfig
from ualm_jax.codecs.xcodec.layers import conv, conv_length, layer_norm, linear, masked, valid
from ualm_jax.codecs.xcodec.pieces import in_blocks, in_windows, join

GROUP_NORM_EPS = 1e-5


def hubert_length(config: HubertConfig, samples):
    """Frames HuBERT makes from `samples` samples; an int, or an array of them. Not positive: too short."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = conv_length(samples, kernel, stride)
    return samples


def _receptive_field(config: HubertConfig) -> int:
    """Samples that one frame depends on."""
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def hubert_mean(
    params: dict, config: HubertConfig, wav: Float[Array, "B N"], lengths: Int[Array, "B"]
) -> Float[Array, "B T D"]:
    """Waveforms to the mean of the hidden states: the transformer's input and the output of each layer."""
    x, lengths = _features(params, config, wav, lengths), hubert_length(config, lengths)
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


def _features(
    params: dict, config: HubertConfig, wav: Float[Array, "B N"], lengths: Int[Array, "B"]
) -> Float[Array, "B T C"]:
    """The convolutions, long waveforms in pieces.

    GroupNorm with one channel per group stands behind the first of them: each channel is normalised over all steps of
    its own clip.
    """
    kernels, strides = params["convs"], config.conv_stride
    hop = math.prod(strides)
    overlap = _receptive_field(config) - hop
    steps = conv_length(lengths, kernels[0].shape[0], strides[0])
    windows = partial(in_windows, wav=wav, hop=hop, overlap=overlap)

    def first(window, start, size):
        """The first convolution, and how many of its steps belong to this window and the clip."""
        count = jnp.clip(steps - start // strides[0], 0, size // strides[0])
        return conv(window[:, :, None], kernels[0], stride=strides[0]), count

    def total(window, start, size):
        return masked(*first(window, start, size)).sum(1, keepdims=True)

    def total_of_squares(window, start, size):
        x, count = first(window, start, size)
        return (masked(x - mean, count) ** 2).sum(1, keepdims=True)

    def rest(window, start, size):
        x, _ = first(window, start, size)
        x = (x - mean) * jax.lax.rsqrt(variance + GROUP_NORM_EPS) * norm["scale"] + norm["bias"]
        x = jax.nn.gelu(x, approximate=False)
        for kernel, stride in zip(kernels[1:], strides[1:], strict=True):
            x = jax.nn.gelu(conv(x, kernel, stride=stride), approximate=False)
        return x

    norm, count = params["group_norm"], steps[:, None, None].astype(wav.dtype)
    mean = windows(total).sum(0) / count
    variance = windows(total_of_squares).sum(0) / count
    return join(windows(rest))


def _layer(
    params: dict, config: HubertConfig, x: Float[Array, "B T D"], keys: Bool[Array, "B T"]
) -> Float[Array, "B T D"]:
    """One post-norm transformer layer, attending to valid frames only."""
    heads = config.num_attention_heads

    def split(name, x):
        return linear(x, **params[name]).reshape(*x.shape[:2], heads, -1)

    key, value = split("key", x), split("value", x)

    def rest(x):
        query = split("query", x)
        scores = jnp.einsum("btnh,bsnh->bnts", query, key) * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(keys[:, None, None, :], scores, -jnp.inf), axis=-1)
        mixed = jnp.einsum("bnts,bsnh->btnh", weights, value).reshape(x.shape)
        x = layer_norm(x + linear(mixed, **params["out"]), **params["attention_norm"], eps=config.layer_norm_eps)
        y = linear(jax.nn.gelu(linear(x, **params["up"]), approximate=False), **params["down"])
        return layer_norm(x + y, **params["output_norm"], eps=config.layer_norm_eps)

    return in_blocks(rest, x)
