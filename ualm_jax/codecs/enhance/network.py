"""The enhancer's network: pure functions of its parameters.

An encoder and a decoder of ConvNeXt blocks at the rate of spectra, and an inverse Fourier transform at the end, as in
Vocos (Siuzdak 2023); between them latents with a divergence (Kingma and Welling 2014) as Stable Audio's have.
No layer runs at a sample rate. What is made is a sum of two parts for each bin: one with magnitude and phase,
and noise with a level. So noise sounds like noise from the first step on, and no discriminator has to teach it. The
side signal begins with a share of the mid signal in each bin, which is what a place between left and right is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ualm_jax.codecs.enhance.config import FACTOR, OVERLAP, RATE_IN, EnhancerConfig
from ualm_jax.codecs.enhance.filters import filtered, lowpass, upsampled

_FLOOR = 1e-5  # of full scale, -100 dB: what is softer looks alike to the encoder
_LOUDEST = 4.0  # log of the greatest magnitude that a bin can be given
_LEAST_DEVIATION = 1e-4
_EPS = 1e-6


class Latents(NamedTuple):
    """Normal distributions: one latent for each `config.hop` samples."""

    mean: Float[Array, "B T D"]
    deviation: Float[Array, "B T D"]


def encode(params: dict, config: EnhancerConfig, wav: Float[Array, "B N"]) -> Latents:
    """Latents of 16 kHz mono sound, N a multiple of config.hop; silence lies around it."""
    x = _linear(_features(_spectra(wav, config.frame, config.causal)), params["encoder"]["in"])
    x = _blocks(x, params["encoder"], config)
    x = _linear(x.reshape(x.shape[0], -1, config.latent_stride * config.width), params["encoder"]["out"])
    mean, scale = jnp.split(x, 2, axis=-1)
    return Latents(mean, jax.nn.softplus(scale) + _LEAST_DEVIATION)


def decode(
    params: dict,
    config: EnhancerConfig,
    latents: Float[Array, "B T D"],
    wav: Float[Array, "B N"],
    noise: Float[Array, "F 2 K 2"],
) -> Float[Array, "B M 2"]:
    """48 kHz stereo, left and right, M = 3 N. wav: what was encoded. noise: see `noise_of`."""
    part = params["decoder"]
    x = _linear(latents, part["in"]).reshape(len(latents), -1, config.width)
    x = _blocks(x, part, config)
    one, other = jnp.moveaxis(_made(x, part, config, noise), 2, 0)
    if config.mid_side:
        mid = one
        if config.crossover_hz is not None:
            # Bins of both rates have the same frequencies, and the same magnitudes but for the windows' lengths.
            heard = _spectra(wav, config.frame, config.causal) * np.float32(np.sqrt(FACTOR))
            below = _below(config)
            mid = (mid * (1 - below)).at[:, :, : config.bins_in].add(heard * below[: config.bins_in])
        side = other + jnp.tanh(_linear(x, part["share"])) * mid
    else:
        mid, side = (one + other) / 2, (one - other) / 2
    mid, side = jnp.moveaxis(_sound(jnp.stack([mid, side], axis=2), config), 2, 0)
    if config.crossover_hz is not None:
        low = lowpass(config.crossover_hz)
        mid = upsampled(wav, low) + mid - filtered(mid, low)
    return jnp.stack([mid + side, mid - side], axis=-1)


def context(config: EnhancerConfig) -> int:
    """Latents on either side that the samples of a latent may depend on."""
    blocks = (config.kernel_size - 1) * (config.encoder_blocks + config.decoder_blocks)
    frames = (blocks if config.causal else blocks // 2) + 2 * (OVERLAP - 1)
    frames += -(-_filter_reach(config) // config.frame)
    return -(-frames // config.latent_stride) + 1


def _filter_reach(config: EnhancerConfig) -> int:
    """Samples at 16 kHz on either side that the crossover's filter looks at."""
    return 0 if config.crossover_hz is None else -(-(len(lowpass(config.crossover_hz)) // 2) // FACTOR)


def noise_of(config: EnhancerConfig, key: Array, frames: Int[Array, " F"]) -> Float[Array, "F 2 K 2"]:
    """Real and imaginary parts of the noise of two signals, by number of the frame: any part can be made alone."""

    def one(frame):
        return jax.random.normal(jax.random.fold_in(key, frame), (2, config.bins_out, 2)) * np.float32(np.sqrt(0.5))

    return jax.vmap(one)(frames)


def _made(x: Float[Array, "B F W"], part: dict, config: EnhancerConfig, noise: Array) -> Array:
    """Spectra [B, F, 2, K] of the two signals."""
    batch, frames, _ = x.shape
    shape = (batch, frames, 2, config.bins_out)
    magnitude = jnp.exp(jnp.minimum(_linear(x, part["magnitude"]), _LOUDEST)).reshape(shape)
    phase = _linear(x, part["phase"]).reshape(shape)
    level = _linear(x, part["noise"]).reshape(batch, frames, 2, -1) @ _between(config)
    level = jnp.exp(jnp.minimum(level, _LOUDEST))
    real = magnitude * jnp.cos(phase) + level * noise[..., 0]
    imaginary = magnitude * jnp.sin(phase) + level * noise[..., 1]
    return jax.lax.complex(real, imaginary)


def _blocks(x: Float[Array, "B F W"], part: dict, config: EnhancerConfig) -> Float[Array, "B F W"]:
    """ConvNeXt (Liu et al. 2022) over time: the blocks are stacked on the first axis of their parameters."""
    reach = config.kernel_size - 1
    padding = (reach, 0) if config.causal else (reach // 2, reach // 2)

    def block(x, layer):
        padded = jnp.pad(x, ((0, 0), padding, (0, 0)))
        y = sum(padded[:, k : k + x.shape[1]] * layer["depthwise"][k] for k in range(config.kernel_size))
        y = _norm(y, layer["norm"])
        return x + _linear(jax.nn.gelu(_linear(y, layer["up"])), layer["down"]), None

    x = _norm(x, part["first_norm"])
    x, _ = jax.lax.scan(jax.checkpoint(block) if config.width > 512 else block, x, part["blocks"])
    return _norm(x, part["last_norm"])


def _linear(x: Array, layer: dict) -> Array:
    return x @ layer["kernel"] + layer["bias"]


def _norm(x: Array, layer: dict) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + _EPS) * layer["scale"] + layer["bias"]


def _hann(samples: int) -> Float[np.ndarray, " W"]:
    """Periodic; divided by the root of its energy."""
    hann = np.hanning(samples + 1)[:-1]
    return (hann / np.sqrt(np.sum(hann**2))).astype(np.float32)


def _around(frame: int, causal: bool) -> tuple[int, int]:
    """Samples of a window before and behind its frame: windows lie around their frames, or end with them."""
    around = (OVERLAP - 1) * frame
    return (around, 0) if causal else (around // 2, around - around // 2)


def _spectra(wav: Float[Array, "B N"], frame: int, causal: bool) -> Array:
    """Spectra [B, F, K] of the windows of N / frame frames."""
    blocks = jnp.pad(wav, ((0, 0), _around(frame, causal))).reshape(len(wav), -1, frame)
    count = blocks.shape[1] - OVERLAP + 1
    windows = jnp.concatenate([blocks[:, i : i + count] for i in range(OVERLAP)], axis=-1)
    return jnp.fft.rfft(windows * _hann(OVERLAP * frame))


def _sound(spectra: Array, config: EnhancerConfig) -> Float[Array, "B M 2"]:
    """The inverse of `_spectra` at 48 kHz, of spectra [B, F, 2, K]."""
    frame = FACTOR * config.frame
    hann = _hann(OVERLAP * frame)
    windows = jnp.fft.irfft(spectra) * (hann * frame)  # squares of four windows in a row add to 1 / frame
    batch, frames = windows.shape[:2]
    blocks = windows.reshape(batch, frames, 2, OVERLAP, frame)
    whole = sum(jnp.pad(blocks[:, :, :, i], ((0, 0), (i, OVERLAP - 1 - i), (0, 0), (0, 0))) for i in range(OVERLAP))
    wav = jnp.moveaxis(whole, 2, 3).reshape(batch, -1, 2)
    before, _ = _around(frame, config.causal)
    return wav[:, before : before + frames * frame]


def _features(spectra: Array) -> Float[Array, "B F G"]:
    """Log magnitudes, and spectra with their magnitudes compressed, about 1 in size."""
    magnitude = jnp.sqrt(spectra.real**2 + spectra.imag**2 + _FLOOR**2)
    compressed = magnitude**-0.7
    parts = [0.2 * jnp.log(magnitude) + 1.0, spectra.real * compressed, spectra.imag * compressed]
    return jnp.concatenate(parts, axis=-1)


def _between(config: EnhancerConfig) -> Float[np.ndarray, "P K"]:
    """Interpolates levels from `noise_bands` points to all bins, linearly."""
    points = np.linspace(0, config.bins_out - 1, config.noise_bands)
    bins = np.arange(config.bins_out)
    return np.stack([np.interp(bins, points, row) for row in np.eye(config.noise_bands)]).astype(np.float32)


def _below(config: EnhancerConfig) -> Float[np.ndarray, " K"]:
    """1 for bins below the crossover, falling to 0 at 8 kHz."""
    hz = np.arange(config.bins_out) * (RATE_IN / (OVERLAP * config.frame))
    return np.interp(hz, [config.crossover_hz, RATE_IN / 2], [1.0, 0.0]).astype(np.float32)
