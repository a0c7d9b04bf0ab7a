"""A codec of 1.8 M parameters for SoundScript: hours on two cores.

ualm codec train --config configs/codec_small.py --workdir runs/codec
ualm codec train ... --config.data.batch_size=12 --config.data.frames=24   on two cores
"""

from ml_collections import ConfigDict

from ualm_jax.mapping import config_dict
from ualm_jax.train.codec_config import CodecRunConfig


def get_config() -> ConfigDict:
    config = config_dict(CodecRunConfig)
    config.codec.update(codebook_size=128, encoder_hidden_size=16, decoder_hidden_size=256, hidden_size=127)
    config.codec.update(downsampling_ratios=(20, 4, 2, 2), upsampling_ratios=(2, 2, 4, 20), linear_ends=True)
    config.data.update(batch_size=32, frames=48)
    config.loss.update(absolute=0.1, squared=0.05, linear=0.5, log=5.0, commitment=0.03)
    config.quantizer.update(begin=300, dropout=0.0)
    config.adversarial.discriminators.update(periods=(2, 3, 5), windows=(1024, 256), width=8)
    adam = dict(warmup_steps=50, decay_steps=20_000, beta2=0.99, weight_decay=1e-4)
    config.optimizer.update(peak_lr=3e-4, end_lr=1e-5, clip_norm=5.0, **adam)
    config.judges_optimizer.update(peak_lr=3e-4, end_lr=3e-5, beta1=0.8, **adam)
    config.train.update(steps=20_000)
    return config
