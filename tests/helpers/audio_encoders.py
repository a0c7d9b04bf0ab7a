"""Small audio encoders with random weights."""

import jax
import numpy as np
from flax import nnx

from ualm_jax.models.audio_encoder import AFWhisperConfig, OmniConfig, build

SIZES = {"num_layers": 2, "width": 32, "num_heads": 4, "mlp_dim": 64, "compute_dtype": "float32"}

OMNI = OmniConfig(half_chunk=10, output_width=24, **SIZES)

GOLDEN = OmniConfig(half_chunk=10, output_width=48, **SIZES)  # as wide as the golden model hears

AF_WHISPER = AFWhisperConfig(num_positions=30, **SIZES)  # windows of 0.6 s

jitted = jax.jit(lambda encoder, mels, lengths: encoder(mels, lengths))


def filled(make):
    """The module that `make` builds, on the current mesh, with weights large enough that each of them shows."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        value = rng.normal(size=leaf.shape) * 0.2 + ("scale" in str(path))
        sharding = jax.NamedSharding(jax.sharding.get_mesh(), leaf.sharding.spec)
        return jax.device_put(value.astype(leaf.dtype), sharding)

    return jax.tree.map_with_path(fill, nnx.eval_shape(make))


def random_encoder(config):
    return filled(lambda: build(config, rngs=nnx.Rngs(0)))


def run(encoder, mels, lengths):
    return jax.tree.map(np.asarray, jitted(encoder, mels, np.asarray(lengths, np.int32)))
