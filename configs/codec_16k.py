"""A codec of the size of X-codec's acoustic half, 8 codebooks of 1 024 at 50 Hz: for your 16 kHz sounds.

ualm codec train --config configs/codec_16k.py --workdir runs/codec --config.data.folder=sounds/

The network is that of the released X-codec's acoustic half. Learning rate, betas, discriminators and dropout of
codebooks are those that the authors of DAC published, and so are batches of 72 crops of 0.38 s, here 64 of 20 frames.
Weights of the losses are those of configs/codec_small.py, untried at this size.
"""

from ml_collections import ConfigDict

from ualm_jax.mapping import config_dict
from ualm_jax.train.codec_config import CodecRunConfig


def get_config() -> ConfigDict:
    config = config_dict(CodecRunConfig)
    config.data.update(threads=8, batch_size=64, frames=20, gain_db=(-12.0, 3.0))
    config.loss.update(absolute=0.1, squared=0.05, linear=0.5, log=5.0, commitment=0.03)
    config.loss.update(windows=(2048, 1024, 512, 256, 128, 64))
    config.quantizer.update(begin=2000, kmeans_frames=262_144, kmeans_rounds=20, dropout=0.5)
    config.adversarial.begin = 20_000
    adam = dict(end_lr=1e-6, warmup_steps=1000, decay_steps=400_000, beta1=0.8, beta2=0.99, weight_decay=1e-4)
    config.optimizer.update(clip_norm=5.0, **adam)
    config.judges_optimizer.update(**adam)
    config.train.update(steps=400_000, averaging=0.999, log_every=100, save_interval=5000, max_to_keep=3)
    config.eval.update(every=5000, sounds=4, seconds=5.0)
    return config
