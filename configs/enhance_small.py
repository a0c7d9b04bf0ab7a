"""An enhancer of 1.4 M parameters for SoundScript: half a second of processor time a step.

ualm enhance train --config configs/enhance_small.py --workdir runs/enhancer
ualm enhance train --config configs/enhance_small.py --workdir runs/enhancer --config.data.folder=sounds/
"""

from ml_collections import ConfigDict

from ualm_jax.mapping import config_dict
from ualm_jax.train.enhance_config import EnhanceRunConfig


def get_config() -> ConfigDict:
    config = config_dict(EnhanceRunConfig)
    config.enhancer.update(width=160, mlp_dim=320, encoder_blocks=3, decoder_blocks=5, latent_width=48)
    config.data.update(soundscript=400, batch_size=8, frames=48, gain_db=(-9.0, 3.0))
    config.loss.update(convergence=0.5, mel=0.0, divergence=1e-5, windows=(2048, 512, 128))
    config.loss.update(mel_windows=(2048, 512, 128), mel_bands=(160, 80, 20))
    config.adversarial.discriminators.update(periods=(2, 3, 5), windows=(2048, 512), width=8)
    adam = dict(warmup_steps=50, decay_steps=10_000, beta1=0.8, beta2=0.99, weight_decay=1e-4)
    config.optimizer.update(peak_lr=1e-3, end_lr=5e-5, **adam)
    config.judges_optimizer.update(peak_lr=3e-4, end_lr=3e-5, **adam)
    config.train.update(steps=10_000, save_interval=500)
    config.eval.update(every=500, sounds=2)
    return config
