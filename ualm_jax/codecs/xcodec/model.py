"""The X-codec: waveforms to codes and back."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ualm_jax.codecs.xcodec import dac
from ualm_jax.codecs.xcodec.config import XCodecConfig
from ualm_jax.codecs.xcodec.hubert import hubert_length, hubert_mean
from ualm_jax.codecs.xcodec.layers import conv, linear, masked
from ualm_jax.codecs.xcodec.rvq import dequantize, quantize
from ualm_jax.codecs.xcodec.weights import read_directory
from ualm_jax.errors import UserError


class XCodec:
    """X-codec with frozen float32 weights; implements `codecs.base.Codec`.

    Each clip runs by itself, padded to a length of a coarse ladder that depends on its own length alone, with exact
    masks beyond its end. So its codes never depend on other clips, they are those of `transformers` without padding,
    and there are few compiled programs: four for every doubling of the length.

    `encode` treats any length as HF's `XcodecModel.encode` does. Whoever needs whole frames (the UALM reference keeps
    the first floor(N / hop) * hop samples) cuts the waveform before.
    """

    def __init__(self, config: XCodecConfig, params: dict):
        self.config = config
        # One device, whatever mesh the caller has set: under that one, every device would do all of the work.
        self._mesh = jax.make_mesh((1,), ("codec",), devices=jax.local_devices()[:1])
        with jax.set_mesh(self._mesh):
            self.params = jax.tree.map(jnp.asarray, params)
        self.sample_rate = config.sample_rate
        self.hop = config.hop
        self.frame_rate = config.sample_rate / config.hop
        self.codebook_sizes = (config.codebook_size,) * config.num_quantizers

    @classmethod
    def from_directory(cls, path: str | Path) -> "XCodec":
        """Load an HF directory (`config.json`, `model.safetensors`); see `weights.read_directory` for errors."""
        return cls(*read_directory(path))

    def encode(self, wav: Float[np.ndarray, "N"]) -> Int[np.ndarray, "T Q"]:
        """Mono samples at `sample_rate` to int32 codes. Raises UserError when too short or not finite."""
        return self.encode_batch([wav])[0]

    def decode(self, codes: Int[np.ndarray, "T Q"]) -> Float[np.ndarray, "N"]:
        """Codes to hop * T float32 samples, not clipped. Raises ValueError for codes that do not exist."""
        return self.decode_batch([codes])[0]

    def encode_batch(self, wavs: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_ Q"]]:
        """`encode` of each clip, queued on the device together."""
        with jax.set_mesh(self._mesh):
            started = [self._start_encode(wav) for wav in wavs]
        return [np.asarray(codes)[0, :frames] for codes, frames in started]

    def decode_batch(self, codes: Sequence[Int[np.ndarray, "_ Q"]]) -> list[Float[np.ndarray, "_"]]:
        """`decode` of each clip, queued on the device together."""
        with jax.set_mesh(self._mesh):
            started = [self._start_decode(c) for c in codes]
        return [np.asarray(wav)[0, :samples] for wav, samples in started]

    def _start_encode(self, wav: np.ndarray) -> tuple[Array, int]:
        samples, hop = len(wav), self.hop
        frames = hubert_length(self.config.semantic, samples + hop)
        if frames < 1:
            raise UserError(f"audio: expected at least one frame of {hop} samples to encode, found {samples} samples")
        if not np.isfinite(wav).all():
            raise UserError("audio: expected finite samples to encode, found NaN or infinity")
        # HuBERT hears half a hop of silence at each end, the acoustic encoder only where frames would not match.
        padded = np.zeros((1, hop * _bucket(-(-samples // hop) + 1)), np.float32)
        padded[0, hop // 2 : hop // 2 + samples] = wav
        bare = dac.encoder_length(self.config.acoustic, samples) == frames
        return _encode(self.params, self.config, padded, np.int32([samples]), np.bool_([bare])), frames

    def _start_decode(self, codes: np.ndarray) -> tuple[Array, int]:
        if codes.shape[1] != len(self.codebook_sizes):
            raise ValueError(f"codes: expected {len(self.codebook_sizes)} codebooks, found {codes.shape[1]}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.config.codebook_size:
            raise ValueError(
                f"codes: expected 0 to {self.config.codebook_size - 1}, found {codes.min()} to {codes.max()}"
            )
        frames = len(codes)
        padded = np.zeros((1, _bucket(frames), codes.shape[1]), np.int32)
        padded[0, :frames] = codes
        return _decode(self.params, self.config, padded, np.int32([frames])), frames * self.hop


def _bucket(frames: int) -> int:
    """`frames` rounded up to one of four steps per octave: at most a quarter more, from 16 on."""
    step = 1 << max((frames - 1).bit_length() - 3, 2)
    return max(-(-frames // step) * step, 16)


@partial(jax.jit, static_argnames="config")
def _encode(
    params: dict, config: XCodecConfig, padded: Float[Array, "B N"], samples: Int[Array, "B"], bare: Bool[Array, "B"]
) -> Int[Array, "B T Q"]:
    """`padded`: half a hop of zeros, the clip's `samples`, zeros. `bare`: no zeros for the acoustic encoder."""
    semantic = hubert_mean(params["hubert"], config.semantic, padded, samples + config.hop)
    frames = hubert_length(config.semantic, samples + config.hop)
    semantic = _semantic_encoder(params["semantic_encoder"], config, semantic, frames)

    half = config.hop // 2
    unpadded = jnp.pad(padded[:, half:], ((0, 0), (0, half)))
    wav = jnp.where(bare[:, None], unpadded, padded)
    acoustic = dac.encode(params["acoustic_encoder"], config.acoustic, wav, samples + jnp.where(bare, 0, config.hop))
    both = jnp.concatenate([acoustic[:, : semantic.shape[1]], semantic], axis=-1)
    return quantize(params["codebooks"], linear(both, **params["fc"]))


@partial(jax.jit, static_argnames="config")
def _decode(
    params: dict, config: XCodecConfig, codes: Int[Array, "B T Q"], frames: Int[Array, "B"]
) -> Float[Array, "B N"]:
    x = linear(dequantize(params["codebooks"], codes), **params["fc2"])
    return dac.decode(params["acoustic_decoder"], config.acoustic, x, frames)


def _semantic_encoder(
    params: dict, config: XCodecConfig, x: Float[Array, "B T D"], frames: Int[Array, "B"]
) -> Float[Array, "B T D"]:
    """HF `SemanticEncoder`: residual units with ELU; ELU keeps the zeros beyond the end."""
    x = conv(masked(x, frames), **params["first"], padding=config.kernel_size // 2)
    for block in params["blocks"]:
        for unit, dilation in zip(block["units"], config.block_dilations, strict=True):
            padding = (config.unit_kernel_size - 1) // 2 * dilation
            y = conv(jax.nn.elu(masked(x, frames)), **unit["conv_1"], dilation=dilation, padding=padding)
            x = x + conv(jax.nn.elu(y), **unit["conv_2"])
        x = conv(masked(x, frames), **block["last"], padding=1)
    return x
