"""Where a codec begins to learn: at the principal components of sound.

From random kernels a codec of this kind stays at "the answer is silence" for hundreds of steps. Here every strided
convolution holds the principal components of the blocks it sees, every transposed one their transpose, and what
residual units add is small, so that training begins with a linear transform of overlapping blocks.
"""

import jax
import numpy as np
from jaxtyping import Float

from ualm_jax.codecs.xcodec.config import DacConfig
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.trainable import Trainable

_UNIT_GAIN = 0.1  # of what residual units add
_ALPHA, _UNIT_ALPHA = 0.002, 1.0  # of the snakes all sound passes (nearly linear), and of those inside residual units
_BLOCKS = 40_000  # as many as principal components are estimated of


def mirrored(config: DacConfig) -> bool:
    """Whether the decoder's layers are the encoder's in reverse, so that they can hold their transposes."""
    widest = config.encoder_hidden_size * 2 ** len(config.downsampling_ratios)
    return config.decoder_hidden_size == widest and config.upsampling_ratios == config.downsampling_ratios[::-1]


def init_principal(trainable: Trainable, sounds: Float[np.ndarray, "B N"], seed: int) -> dict:
    """Parameters to train, for sounds like these (whole frames of mono samples). The codec must be `mirrored`."""
    config = trainable.config.acoustic
    params = jax.tree.map(np.copy, trainable.narrowed(init_random(trainable.config, seed)))
    draws = np.random.default_rng(seed)
    for part in ("acoustic_encoder", "acoustic_decoder"):
        for block in params[part]["blocks"]:
            for unit in block["units"]:
                unit["conv_2"]["kernel"] *= _UNIT_GAIN
    params["acoustic_encoder"], params["acoustic_decoder"] = (
        jax.tree_util.tree_map_with_path(_nearly_linear, params[part])
        for part in ("acoustic_encoder", "acoustic_decoder")
    )
    encoder, decoder = params["acoustic_encoder"], params["acoustic_decoder"]

    x = sounds[:, :, None]
    strided = [encoder["first"], *(block["down"] for block in encoder["blocks"])]
    transposed = [*(block["up"] for block in decoder["blocks"]), decoder["last"]]
    for stride, down, up in zip(config.downsampling_ratios, strided, reversed(transposed), strict=True):
        blocks = _blocks(x, stride)
        window = np.sin(np.pi * (np.arange(2 * stride) + 0.5) / (2 * stride))[:, None]  # squares of neighbours add to 1
        flat = (blocks * window).reshape(-1, blocks.shape[-2] * blocks.shape[-1])
        width = down["kernel"].shape[2]
        chosen = flat[draws.permutation(len(flat))[:_BLOCKS]]
        _, vectors = np.linalg.eigh(chosen.T @ chosen)
        components = np.zeros((flat.shape[1], width))
        components[:, : min(width, flat.shape[1])] = vectors[:, ::-1][:, :width]
        scale = 1.0 / np.sqrt(np.mean((flat @ components) ** 2))
        kernel = components.reshape(2 * stride, -1, width) * window[:, :, None]
        down["kernel"][:], up["kernel"][:] = kernel * scale, (kernel / scale).transpose(0, 2, 1)
        x = (flat @ (components * scale)).reshape(len(x), -1, width)
    width = config.hidden_size
    flat = x.reshape(-1, x.shape[2])
    _, vectors = np.linalg.eigh(flat.T @ flat)
    latent = vectors[:, ::-1][:, :width].astype(np.float32)
    # Features leave the encoder with unit size on average.
    scale = np.float32(np.sqrt(np.mean((flat @ latent) ** 2)))
    for kernel, middle in ((encoder["last"]["kernel"], latent / scale), (decoder["first"]["kernel"], latent.T * scale)):
        kernel[:] = 0.01 * kernel
        kernel[len(kernel) // 2] = middle
    identity = np.eye(*params["fc"]["kernel"].shape, dtype=np.float32)
    params["fc"]["kernel"][:], params["fc2"]["kernel"][:] = identity, identity.T
    return params


def _nearly_linear(path, leaf):
    name = jax.tree_util.keystr(path[-1:])
    return np.full_like(leaf, _UNIT_ALPHA if "alpha_" in name else _ALPHA) if "alpha" in name else leaf


def _blocks(x: Float[np.ndarray, "B N C"], stride: int) -> Float[np.ndarray, "B T K C"]:
    """What each output of a strided convolution sees, 2 * stride samples wide."""
    padding = -(-stride // 2)
    padded = np.pad(x, ((0, 0), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * stride, axis=1)[:, ::stride]
    return windows.transpose(0, 1, 3, 2)
