"""DAC encoder and decoder (Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN").

As X-codec uses them: upsampling keeps every length a multiple of the hop, and the last tanh is gone. Ported
from the behaviour of `transformers` 5.23 `DacEncoder`, `DacDecoder`, `XcodecModel._adjust_dac_decoder`.
`lengths` are the true lengths of the clips inside their padded rows; results at frames of a clip do not
depend on what lies beyond its end. None: every clip fills its row.
"""

import math

from jaxtyping import Array, Float, Int

from ualm_jax.codecs.xcodec.config import DacConfig
from ualm_jax.codecs.xcodec.layers import conv, conv_length, masked, snake, upsample

UNIT_DILATIONS = (1, 3, 9)
UNIT_KERNEL = 7
_UNITS = UNIT_KERNEL // 2 * sum(UNIT_DILATIONS)  # steps on either side that the units of a block reach
_ENDS = 3  # steps on either side that the first and the last convolution reach, at most


def encoder_length(config: DacConfig, samples):
    """Frames the encoder makes from `samples` samples; an int, or an array of them."""
    for stride in config.downsampling_ratios:
        samples = conv_length(samples, 2 * stride, stride, -(-stride // 2))
    return samples


def encoder_context(config: DacConfig) -> int:
    """Frames on either side that a frame of `encode` depends on, at most."""
    samples, rate = _ENDS, 1  # rate: samples of a step
    for stride in config.downsampling_ratios:
        samples += (_UNITS + 2 * stride) * rate
        rate *= stride
    return -(-samples // rate) + _ENDS


def decoder_context(config: DacConfig) -> int:
    """Frames on either side that the samples of a frame of `decode` depend on, at most."""
    frames, rate = _ENDS + 0.0, 1  # rate: steps of a frame
    for stride in config.upsampling_ratios:
        frames += 2 / rate
        rate *= stride
        frames += _UNITS / rate
    return math.ceil(frames + _ENDS / rate)


def encode(
    params: dict, config: DacConfig, wav: Float[Array, "B N"], lengths: Int[Array, "B"] | None
) -> Float[Array, "B T D"]:
    """Waveforms, zero beyond `lengths`, to acoustic features.

    Of "blocks", any number at the front may be absent: then "first" takes their place (`linear_ends`).
    """
    strides = config.downsampling_ratios
    absent = len(strides) - len(params["blocks"])
    x = wav[:, :, None]
    if absent:
        x, lengths = _shortened(params["first"], x, lengths, strides[0])
    else:
        x = conv(x, **params["first"], padding=3)
    for block, stride in zip(params["blocks"], strides[absent:], strict=True):
        x = _residual_units(block["units"], x, lengths)
        x, lengths = _shortened(block["down"], masked(snake(x, block["alpha"]), lengths), lengths, stride)
    return conv(masked(snake(x, params["alpha"]), lengths), **params["last"], padding=1)


def decode(
    params: dict, config: DacConfig, x: Float[Array, "B T D"], lengths: Int[Array, "B"] | None
) -> Float[Array, "B N"]:
    """Acoustic features to waveforms of hop * T samples; samples beyond hop * length mean nothing.

    Of "blocks", the last may be absent: then "last" takes its place (`linear_ends`).
    """
    strides = config.upsampling_ratios
    x = conv(masked(x, lengths), **params["first"], padding=3)
    for block, stride in zip(params["blocks"], strides, strict=False):
        x = upsample(masked(snake(x, block["alpha"]), lengths), **block["up"], stride=stride)
        lengths = None if lengths is None else lengths * stride
        x = _residual_units(block["units"], x, lengths)
    x = masked(snake(x, params["alpha"]), lengths)
    if len(params["blocks"]) < len(strides):
        return upsample(x, **params["last"], stride=strides[-1])[:, :, 0]
    return conv(x, **params["last"], padding=3)[:, :, 0]


def _shortened(
    params: dict, x: Float[Array, "B T C"], lengths: Int[Array, "B"] | None, stride: int
) -> tuple[Float[Array, "B S D"], Int[Array, "B"] | None]:
    """A strided convolution with two strides of taps, and the lengths after it."""
    padding = -(-stride // 2)
    shorter = None if lengths is None else conv_length(lengths, 2 * stride, stride, padding)
    return conv(x, **params, stride=stride, padding=padding), shorter


def _residual_units(
    units: list[dict | None], x: Float[Array, "B T C"], lengths: Int[Array, "B"] | None
) -> Float[Array, "B T C"]:
    for unit, dilation in zip(units, UNIT_DILATIONS, strict=True):
        if unit is None:  # it adds zero
            continue
        y = masked(snake(x, unit["alpha_1"]), lengths)
        y = conv(y, **unit["conv_1"], dilation=dilation, padding=UNIT_KERNEL // 2 * dilation)
        x = x + conv(snake(y, unit["alpha_2"]), **unit["conv_2"])
    return x
