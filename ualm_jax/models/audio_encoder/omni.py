"""The audio tower of Qwen2.5-Omni.

Port of `Qwen2_5OmniAudioEncoder` (transformers 5.23). There clips are ragged and joined end to end; here a
chunk is one row of a dense array: the same thing, because nothing before the pooling reaches across chunks.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from ualm_jax.audio.mel import MEL_BINS, MelFrontEnd, frames_out
from ualm_jax.models.audio_encoder.config import OmniConfig
from ualm_jax.models.audio_encoder.layers import (
    Conv,
    LayerNorm,
    Linear,
    average_pairs,
    gelu,
    make_layers,
    run_layers,
    silence_after,
)
from ualm_jax.parallel.sharding import reshard, spec


def sinusoids(length: int, dim: int) -> Float[np.ndarray, "T D"]:
    """Whisper's positions: sines, then cosines, of wavelengths from 2 pi to 10000 * 2 pi."""
    scales = np.exp(-np.log(10000.0) / (dim // 2 - 1) * np.arange(dim // 2)).astype(np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * scales
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


class OmniEncoder(nnx.Module):
    """Mel frames to embeddings of `config.output_width`, four to one."""

    def __init__(self, config: OmniConfig, *, rngs: nnx.Rngs):
        dim, dtype = config.width, config.param_dtype
        self.config = config
        self.conv1 = Conv(MEL_BINS, dim, 1, dtype, rngs)
        self.conv2 = Conv(dim, dim, 2, dtype, rngs)
        self.layers = make_layers(config, rngs)
        self.norm = LayerNorm(dim, dtype)
        self.projection = Linear(dim, config.output_width, ("embed", None), dtype, rngs)

    @property
    def front_end(self) -> MelFrontEnd:
        return self.config.front_end

    @property
    def output_width(self) -> int:
        return self.config.output_width

    def __call__(
        self, mels: Float[Array, "N F M"], lengths: Int[Array, "N"]
    ) -> tuple[Float[Array, "N C A"], Int[Array, "N"]]:
        """Embeddings at 25 Hz and how many of each clip are real; the rest are zero.

        Args:
            mels: one clip a row, M a multiple of the chunk; what lies beyond a clip's length is not read.
            lengths: mel frames of each clip.

        Returns:
            C = M // 4 frames of A = `config.output_width`, in `compute_dtype`; counts (lengths + 1) // 4.
        """
        clips, _, frames = mels.shape
        chunk = 2 * self.config.half_chunk
        if frames % chunk:
            raise ValueError(f"mels have {frames} frames, not a multiple of the chunk of {chunk}")
        num_chunks = clips * frames // chunk
        mels, lengths = reshard(mels, "batch", None, None), reshard(lengths, "batch")

        heard = jnp.arange(frames) < lengths[:, None]
        x = jnp.where(heard[..., None], mels.transpose(0, 2, 1), 0).astype(self.config.compute_dtype)
        x = x.reshape((num_chunks, chunk, MEL_BINS), out_sharding=spec("batch", None, None))
        heard = heard.reshape((num_chunks, chunk), out_sharding=spec("batch", None))

        # without the mask the last real frame would see the first convolution's answer to silence
        x = jnp.where(heard[..., None], gelu(self.conv1(x)), 0)
        x = gelu(self.conv2(x)) + sinusoids(chunk // 2, self.config.width).astype(x.dtype)
        x = run_layers(self.layers, x, heard[:, ::2])

        # pairs are over the clip: with a chunk of odd half length they cross its border
        x = x.reshape((clips, frames // 2, self.config.width), out_sharding=spec("batch", None, None))
        counts = frames_out(lengths)
        x = self.projection(self.norm(average_pairs(x)))
        return silence_after(x, counts), counts
