"""AF-Whisper, the audio encoder of Audio Flamingo 3.

Port of `AudioFlamingo3Encoder` (transformers 5.23): Whisper's encoder, with pairs of frames averaged before
its last layer norm.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ualm_jax.audio.mel import MEL_BINS, MelFrontEnd, frames_out
from ualm_jax.models.audio_encoder.config import AFWhisperConfig
from ualm_jax.models.audio_encoder.layers import (
    INIT_STD,
    Conv,
    LayerNorm,
    average_pairs,
    gelu,
    make_layers,
    run_layers,
    silence_after,
)
from ualm_jax.models.params import normal
from ualm_jax.parallel.sharding import reshard


class AFWhisperEncoder(nnx.Module):
    """Windows of 30 s of mel to embeddings of `config.width`, four frames to one."""

    def __init__(self, config: AFWhisperConfig, *, rngs: nnx.Rngs):
        dim, dtype = config.width, config.param_dtype
        self.config = config
        self.conv1 = Conv(MEL_BINS, dim, 1, dtype, rngs)
        self.conv2 = Conv(dim, dim, 2, dtype, rngs)
        self.positions = normal(rngs, (config.num_positions, dim), (None, None), std=INIT_STD, dtype=dtype)
        self.layers = make_layers(config, rngs)
        self.norm = LayerNorm(dim, dtype)

    @property
    def front_end(self) -> MelFrontEnd:
        return self.config.front_end

    @property
    def output_width(self) -> int:
        return self.config.output_width

    def __call__(
        self, mels: Float[Array, "N F M"], lengths: Int[Array, "N"]
    ) -> tuple[Float[Array, "N C A"], Int[Array, "N"]]:
        """Embeddings at 25 Hz and how many of each window are real; the rest are zero.

        Args:
            mels: one window a row, M = 3000 frames. Frames beyond the length are those of the padded silence:
                the convolutions do read them, as they did in training; attention does not.
            lengths: mel frames of sound in each window.

        Returns:
            C = M // 4 = 750 frames of A = `config.width`, in `compute_dtype`; counts (lengths + 1) // 4.
        """
        frames = 2 * self.config.num_positions
        if mels.shape[2] != frames:
            raise ValueError(f"mels have {mels.shape[2]} frames, expected a whole window of {frames}")
        mels, lengths = reshard(mels, "batch", None, None), reshard(lengths, "batch")

        x = mels.transpose(0, 2, 1).astype(self.config.compute_dtype)
        x = gelu(self.conv2(gelu(self.conv1(x)))) + self.positions.astype(x.dtype)
        heard = jnp.arange(0, frames, 2) < lengths[:, None]
        x = self.norm(average_pairs(run_layers(self.layers, x, heard)))
        counts = frames_out(lengths)
        return silence_after(x, counts), counts
