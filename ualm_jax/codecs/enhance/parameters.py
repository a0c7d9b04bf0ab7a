"""Every parameter of an enhancer: its shape, and what it begins to learn with. One tree, for files and for training."""

import math
from typing import NamedTuple

import jax
import numpy as np

from ualm_jax.codecs.enhance.config import EnhancerConfig

_BLOCKS_GAIN = 0.5  # size of what all blocks of a stack add together
_HEAD_GAIN = 0.3
_LOG_MAGNITUDE, _LOG_LEVEL = -7.0, -8.0  # an untrained enhancer is softer than sounds, louder than silence


class Tensor(NamedTuple):
    """A parameter, which begins as normal draws with this standard deviation around `value`."""

    shape: tuple[int, ...]
    deviation: float = 0.0
    value: float = 0.0


def specification(config: EnhancerConfig) -> dict:
    """The tree of `Tensor`s, in the structure of the parameters. Blocks are stacked on the first axis."""
    width, patch = config.width, config.latent_stride * config.width
    decoder = {
        "in": _linear(config.latent_width, patch),
        **_stack(config, config.decoder_blocks),
        "magnitude": _linear(width, 2 * config.bins_out, _HEAD_GAIN, _LOG_MAGNITUDE),
        "phase": _linear(width, 2 * config.bins_out),
        "noise": _linear(width, 2 * config.noise_bands, _HEAD_GAIN, _LOG_LEVEL),
    }
    if config.mid_side:
        decoder["share"] = _linear(width, config.bins_out, _HEAD_GAIN)
    encoder = {
        "in": _linear(3 * config.bins_in, width),
        **_stack(config, config.encoder_blocks),
        "out": _linear(patch, 2 * config.latent_width),
    }
    return {"encoder": encoder, "decoder": decoder}


def init_enhancer(config: EnhancerConfig, seed: int) -> dict:
    """Parameters as float32 numpy arrays, the same on every machine."""
    draws = np.random.default_rng(seed)

    def leaf(tensor: Tensor) -> np.ndarray:
        if not tensor.deviation:
            return np.full(tensor.shape, tensor.value, np.float32)
        return draws.standard_normal(tensor.shape, np.float32) * np.float32(tensor.deviation)

    return jax.tree.map(leaf, specification(config), is_leaf=is_tensor)


def is_tensor(leaf) -> bool:
    return isinstance(leaf, Tensor)


def _linear(into: int, out: int, gain: float = 1.0, bias: float = 0.0, count: tuple[int, ...] = ()) -> dict:
    return {"kernel": Tensor((*count, into, out), gain / math.sqrt(into)), "bias": Tensor((*count, out), value=bias)}


def _norm(width: int, count: tuple[int, ...] = ()) -> dict:
    return {"scale": Tensor((*count, width), value=1.0), "bias": Tensor((*count, width))}


def _stack(config: EnhancerConfig, blocks: int) -> dict:
    width, count = config.width, (blocks,)
    layers = {
        "depthwise": Tensor((blocks, config.kernel_size, width), 1 / math.sqrt(config.kernel_size)),
        "norm": _norm(width, count),
        "up": _linear(width, config.mlp_dim, count=count),
        "down": _linear(config.mlp_dim, width, _BLOCKS_GAIN / math.sqrt(blocks), count=count),
    }
    return {"first_norm": _norm(width), "blocks": layers, "last_norm": _norm(width)}
