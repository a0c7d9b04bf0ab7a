"""The enhancer as it is used: sounds of any length, a piece at a time."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from ualm_jax.audio.io import loudness
from ualm_jax.codecs.enhance import network
from ualm_jax.codecs.enhance.config import FACTOR, RATE_IN, RATE_OUT, EnhancerConfig
from ualm_jax.codecs.enhance.filters import mono_input
from ualm_jax.codecs.enhance.weights import read_directory

_PIECE = 1024  # latents that are computed at once: 10 s at 100 a second


class Enhancer:
    """16 kHz mono to 48 kHz stereo. Frozen and deterministic: a sample depends on the input alone.

    A sound is taken as lying in silence, so every piece of it can be computed from its surroundings alone, and joined
    pieces equal the whole.
    """

    rate_in, sample_rate = RATE_IN, RATE_OUT

    def __init__(self, config: EnhancerConfig, params: dict):
        self.config = config
        self.params = jax.tree.map(jnp.asarray, params)
        self._piece = jax.jit(functools.partial(_piece, config))

    @classmethod
    def from_directory(cls, path: str | os.PathLike) -> "Enhancer":
        """The enhancer that `ualm enhance train` wrote. Raises UserError as `weights.read_directory` does."""
        return cls(*read_directory(path))

    def enhance(self, wav: Float[np.ndarray, " N"], piece: int = _PIECE) -> Float32[np.ndarray, "M 2"]:
        """48 kHz stereo of a 16 kHz mono sound, just as loud; M = 3 N. piece: latents that are computed at once.

        Raises ValueError for samples that are none, not mono or not finite.
        """
        if wav.ndim != 1 or not len(wav) or not np.isfinite(wav).all():
            raise ValueError(f"expected finite mono samples, got an array of shape {wav.shape}")
        hop, context = self.config.hop, network.context(self.config)
        latents = -(-len(wav) // hop)
        size = min(piece, 1 << (latents - 1).bit_length())
        window = (size + 2 * context) * hop
        padded = np.pad(wav.astype(np.float32), (context * hop, window))
        made = []
        for start in range(0, latents, size):
            part = self._piece(self.params, padded[start * hop :][:window], start - context)
            made.append(np.asarray(part)[context * hop * FACTOR :][: size * hop * FACTOR])
        stereo = np.concatenate(made)[: FACTOR * len(wav)]
        return stereo if self.config.crossover_hz is not None else stereo * _level(wav, stereo)


def _piece(config: EnhancerConfig, params: dict, wav: jax.Array, first: jax.Array) -> jax.Array:
    """wav: whole latents, of which the first has the number `first`."""
    with jax.default_matmul_precision("highest"):
        frames = first * config.latent_stride + jnp.arange(len(wav) // config.frame)
        noise = network.noise_of(config, jax.random.key(0), frames)
        latents = network.encode(params, config, wav[None]).mean
        return network.decode(params, config, latents, wav[None], noise)[0]


def _level(wav: np.ndarray, stereo: np.ndarray) -> np.float32:
    """The factor for `stereo` that makes what the input could have held of it as loud as the input; 1 for silence."""
    heard, made = (loudness(mono, RATE_IN) for mono in (wav, mono_input(stereo)))
    return np.float32(10 ** ((heard - made) / 20) if np.isfinite(heard - made) else 1.0)
