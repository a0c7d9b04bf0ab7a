"""The X-codec's network: waveforms to the vectors that are quantised, and quantised vectors to waveforms.

Ported from the behaviour of `transformers` 5.23 `XcodecModel`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ualm_jax.codecs.xcodec import dac
from ualm_jax.codecs.xcodec.config import XCodecConfig
from ualm_jax.codecs.xcodec.hubert import hubert_length, hubert_mean
from ualm_jax.codecs.xcodec.layers import conv, linear, masked
from ualm_jax.codecs.xcodec.pieces import in_pieces


def features(
    params: dict, config: XCodecConfig, padded: Float[Array, "B N"], samples: Int[Array, "B"], bare: Bool[Array, "B"]
) -> Float[Array, "B T D"]:
    """The vectors that are quantised, of clips of any length.

    padded: half a hop of zeros, the clip's `samples`, zeros. bare: no zeros for the acoustic encoder.
    """
    if params["hubert"] is None:  # its features count for nothing
        frames = hubert_length(config.semantic, padded.shape[1])
        semantic = jnp.zeros((len(padded), frames, config.semantic.hidden_size))
    else:
        semantic = semantic_features(params, config, padded, samples + config.hop)
    half = config.hop // 2
    unpadded = jnp.pad(padded[:, half:], ((0, 0), (0, half)))
    wav = jnp.where(bare[:, None], unpadded, padded)
    acoustic = in_pieces(
        lambda wav, lengths: dac.encode(params["acoustic_encoder"], config.acoustic, wav, lengths),
        wav,
        samples + jnp.where(bare, 0, config.hop),
        units=(config.hop, 1),
        context=dac.encoder_context(config.acoustic),
    )
    both = jnp.concatenate([acoustic[:, : semantic.shape[1]], semantic], axis=-1)
    return linear(both, **params["fc"])


def semantic_features(
    params: dict, config: XCodecConfig, padded: Float[Array, "B N"], lengths: Int[Array, "B"]
) -> Float[Array, "B T S"]:
    """HuBERT's features of `padded`, through the semantic encoder. lengths: of the clips with their padding."""
    heard = hubert_mean(params["hubert"], config.semantic, padded, lengths)
    return semantic_encoder(params["semantic_encoder"], config, heard, hubert_length(config.semantic, lengths))


def waveform(
    params: dict, config: XCodecConfig, quantized: Float[Array, "B T D"], frames: Int[Array, "B"] | None
) -> Float[Array, "B N"]:
    """Sums of codewords to hop * T samples; samples beyond hop * frames mean nothing."""
    return in_pieces(
        lambda x, frames: dac.decode(params["acoustic_decoder"], config.acoustic, x, frames),
        linear(quantized, **params["fc2"]),
        frames,
        units=(1, config.hop),
        context=dac.decoder_context(config.acoustic),
    )


def semantic_encoder(
    params: dict, config: XCodecConfig, x: Float[Array, "B T S"], frames: Int[Array, "B"] | None
) -> Float[Array, "B T S"]:
    """HF `SemanticEncoder`: residual units with ELU; ELU keeps the zeros beyond the end."""
    x = conv(masked(x, frames), **params["first"], padding=config.kernel_size // 2)
    for block in params["blocks"]:
        x = _semantic_units(block["units"], config, x, frames)
        x = conv(masked(x, frames), **block["last"], padding=1)
    return x


def semantic_decoder(params: dict, config: XCodecConfig, x: Float[Array, "B T S"]) -> Float[Array, "B T S"]:
    """HF `SemanticDecoder`, of clips that fill their rows."""
    x = conv(x, **params["first"], padding=config.kernel_size // 2)
    for block in params["blocks"]:
        x = _semantic_units(block["units"], config, conv(x, **block["first"], padding=1), None)
    return conv(x, **params["last"], padding=config.kernel_size // 2)


def _semantic_units(
    units: list[dict], config: XCodecConfig, x: Float[Array, "B T S"], frames: Int[Array, "B"] | None
) -> Float[Array, "B T S"]:
    for unit, dilation in zip(units, config.block_dilations, strict=True):
        padding = (config.unit_kernel_size - 1) // 2 * dilation
        y = conv(jax.nn.elu(masked(x, frames)), **unit["conv_1"], dilation=dilation, padding=padding)
        x = x + conv(jax.nn.elu(y), **unit["conv_2"])
    return x
