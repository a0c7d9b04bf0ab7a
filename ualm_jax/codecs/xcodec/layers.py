"""The few operations all parts share: convolution over time, its transpose, masks, and the snake activation.

Activations are [B, T, C], kernels [K, C in, C out], all float32. How exact products are is the caller's to say, with
`jax.default_matmul_precision`: a codec that is used asks for "highest", because a TF32 product would move codes that
sit near a tie; training may do without.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def conv_length(length, kernel: int, stride: int = 1, padding: int = 0):
    """Frames an (undilated) convolution makes from `length` frames; an int, or an array of them."""
    return (length + 2 * padding - kernel) // stride + 1


def conv(
    x: Float[Array, "B T C"],
    kernel: Float[Array, "K I O"],
    bias: Float[Array, "O"] | None = None,
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "B S O"]:
    """Convolution over time, zero padded by `padding` at each end (or by a pair: before, after)."""
    before, after = padding if isinstance(padding, tuple) else (padding, padding)
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [(before, after)],
        rhs_dilation=(dilation,),
        feature_group_count=groups,
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y if bias is None else y + bias


def upsample(
    x: Float[Array, "B T C"], kernel: Float[Array, "K C O"], bias: Float[Array, "O"], stride: int
) -> Float[Array, "B S O"]:
    """Transposed convolution from T to T * stride frames, with a kernel of 2 * stride taps.

    Each input frame writes two blocks of `stride` output frames; neighbours overlap by one block. As one matrix
    product and one shifted sum this is faster than a convolution over a stretched input. The crop is that of
    `ConvTranspose1d(kernel=2s, stride=s, padding=ceil(s / 2), output_padding=s % 2)`.
    """
    batch, frames, _ = x.shape
    blocks = jnp.einsum("btc,kco->btko", x, kernel)
    first = jnp.pad(blocks[:, :, :stride], ((0, 0), (0, 1), (0, 0), (0, 0)))
    second = jnp.pad(blocks[:, :, stride:], ((0, 0), (1, 0), (0, 0), (0, 0)))
    y = (first + second).reshape(batch, (frames + 1) * stride, -1)
    crop = -(-stride // 2)
    return y[:, crop : crop + frames * stride] + bias


def linear(x: Float[Array, "B T C"], kernel: Float[Array, "C O"], bias: Float[Array, "O"]) -> Float[Array, "B T O"]:
    return jnp.dot(x, kernel) + bias


def layer_norm(
    x: Float[Array, "B T C"], scale: Float[Array, "C"], bias: Float[Array, "C"], eps: float
) -> Float[Array, "B T C"]:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + eps) * scale + bias


def valid(lengths: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
    """True where a frame belongs to its clip."""
    return jnp.arange(frames) < lengths[:, None]


def masked(x: Float[Array, "B T C"], lengths: Int[Array, "B"] | None) -> Float[Array, "B T C"]:
    """Zero beyond each clip's end, where a convolution of the clip alone would find its zero padding.

    lengths: None where every clip fills its row.
    """
    if lengths is None:
        return x
    return jnp.where(valid(lengths, x.shape[1])[:, :, None], x, 0.0)


def snake(x: Float[Array, "B T C"], alpha: Float[Array, "1 1 C"]) -> Float[Array, "B T C"]:
    """x + sin²(αx) / (α + 1e-9), the periodic activation of BigVGAN and DAC."""
    return x + _sin_squared(alpha * x) / (alpha + 1e-9)


# Taylor coefficients of sin(r) / r in r²; the next term is below float32 resolution for |r| <= pi / 2.
_SINE = [np.float32(c) for c in (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800)]


def _sin_squared(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """sin²(x) to float32 accuracy for |x| up to thousands, five times faster on CPUs than squaring `jnp.sin`.

    sin² has period pi, so reducing to [-pi/2, pi/2] needs no case distinction; pi is subtracted in two parts, the
    first short enough for exact products (Cody and Waite, "Software Manual for the Elementary Functions").
    """
    turns = jnp.round(x * np.float32(1 / np.pi))
    r = (x - turns * np.float32(3.140625)) - turns * np.float32(np.pi - 3.140625)
    square = r * r
    poly = _SINE[-1]
    for coefficient in _SINE[-2::-1]:
        poly = poly * square + coefficient
    return square * poly * poly
