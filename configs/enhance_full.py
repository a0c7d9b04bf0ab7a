"""An enhancer about the size of ETTA's autoencoder, 155 M parameters, with discriminators: for your 48 kHz stereo.

ualm enhance train --config configs/enhance_full.py --workdir runs/enhancer --config.data.folder=sounds/
ualm enhance train ... --config.pairs.codec=codec/   a share of the crops passes the codec, as what a model makes has
"""

from ml_collections import ConfigDict

from ualm_jax.mapping import config_dict
from ualm_jax.train.enhance_config import EnhanceRunConfig


def get_config() -> ConfigDict:
    config = config_dict(EnhanceRunConfig)
    config.enhancer.update(width=1024, mlp_dim=3072, encoder_blocks=8, decoder_blocks=16, noise_bands=121)
    config.data.update(soundscript=20_000, threads=8, batch_size=64, frames=128, gain_db=(-12.0, 3.0))
    config.pairs.update(equaliser_share=0.3, noise_share=0.2)
    config.loss.update(mel_windows=(2048, 1024, 512, 256, 128, 64), mel_bands=(320, 160, 80, 40, 20, 10))
    config.adversarial.begin = 50_000
    adam = dict(warmup_steps=1000, decay_steps=1_000_000, beta1=0.8, beta2=0.99, weight_decay=1e-3)
    config.optimizer.update(peak_lr=1.5e-4, end_lr=1e-5, **adam)
    config.judges_optimizer.update(peak_lr=3e-4, end_lr=2e-5, **adam)
    config.train.update(steps=1_000_000, averaging=0.999, log_every=100, save_interval=5000, max_to_keep=3)
    config.mesh.update(data=1, fsdp=-1)
    config.eval.update(every=5000, sounds=4, seconds=5.0)
    return config
