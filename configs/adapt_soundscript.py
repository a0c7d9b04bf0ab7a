"""Adaptation of the model in the box to the best of its own sounds, a minute on a laptop (docs/post-training.md).

ualm train --config configs/adapt_soundscript.py --config.data.directory=data/prefer/winners --workdir runs/adapt
"""

from ml_collections import ConfigDict

from ualm_jax.configs import soundscript


def get_config() -> ConfigDict:
    config = soundscript.get_deaf_config()
    config.data.update(directory="data/prefer/winners", sources=())
    config.optimizer.update(schedule="constant", peak_lr=3e-5, warmup_steps=5)
    config.train.update(init_from="soundscript", steps=20, save_interval=20, log_every=1)
    config.eval.prompts = ()
    return config
