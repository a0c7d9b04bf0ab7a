"""Random X-codecs: for tests, benchmarks and demonstrations that need a codec but no trained one.

The sound such a codec decodes is not the sound it encoded, and is no music. But sounds do become varied codes
in every codebook, and codes become sound of moderate loudness, so everything around the codec can be run.
"""

import math

import jax
import numpy as np

from ualm_jax.codecs.xcodec.config import DacConfig, HubertConfig, XCodecConfig
from ualm_jax.codecs.xcodec.specification import Tensor, specification

CODEWORD = 0.5  # size of the first codebook's entries
DECAY = 0.8  # of the codewords' size from one codebook to the next
RESIDUAL_GAIN = 0.3  # of what residual units add
ALPHA = 0.1
OUTPUT_GAIN = 0.05


def tiny_config() -> XCodecConfig:
    """8 codebooks of 64, about 0.3 M parameters: fast on one CPU core."""
    return XCodecConfig(
        target_bandwidths=(0.3, 0.6, 1.2, 2.4),
        codebook_size=64,
        acoustic=DacConfig(encoder_hidden_size=8, hidden_size=32, decoder_hidden_size=64),
        semantic=HubertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            conv_dim=(16,) * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        ),
    )


def init_random(config: XCodecConfig, seed: int) -> dict:
    """`params` of float32 numpy arrays, the same bits on every machine.

    Only uniform draws, products and square roots make them, which IEEE arithmetic defines exactly. Kernels keep the
    variance of their input; snakes are nearly linear, so sounds without direct current give vectors without a common
    offset; codewords are corners of a cube, one length for all in a codebook, so the nearest one follows from the
    direction of a vector and not from the loudness of the sound. Factorised ones are drawn from within the cube: their
    directions alone count.
    """
    draws = np.random.Generator(np.random.PCG64(seed))

    def leaf(spec: Tensor) -> np.ndarray:
        shape = (() if spec.count is None else (spec.count,)) + spec.shape
        name = spec.name
        if name.endswith(".alpha"):
            value = np.full(shape, ALPHA, np.float32)
        elif name.endswith("codebook.weight"):  # of few numbers, that have few corners
            value = _uniform(draws, shape, CODEWORD) * np.float32([DECAY**q for q in range(spec.count)])[:, None, None]
        elif name.endswith("codebook.embed"):
            signs = draws.integers(0, 2, shape, np.int8) * np.float32(2) - np.float32(1)
            value = signs * np.float32([CODEWORD * DECAY**q for q in range(spec.count)])[:, None, None]
        elif len(spec.shape) == 1:
            value = np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32)
        else:
            value = _uniform(draws, shape, _gain(name) / math.sqrt(_fan_in(spec)))
        axes = spec.axes if spec.count is None else (0, *(1 + a for a in spec.axes))
        return np.ascontiguousarray(value.transpose(axes))

    return jax.tree.map(leaf, specification(config))


def _uniform(draws: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    return (draws.random(shape, np.float32) - np.float32(0.5)) * np.float32(math.sqrt(12) * deviation)


def _fan_in(spec: Tensor) -> int:
    if spec.axes == (2, 0, 1):  # transposed convolution: two taps meet in each output frame
        return 2 * spec.shape[0]
    return math.prod(spec.shape[1:])


def _gain(name: str) -> float:
    if "res_unit" in name and "conv2" in name:
        return RESIDUAL_GAIN
    if name == "acoustic_decoder.conv2.weight":
        return OUTPUT_GAIN
    return 1.0
