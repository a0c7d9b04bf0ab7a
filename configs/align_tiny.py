"""align_7b's tiny twin: adapter and audio tokens are trained, the rest of a random model stays (launch/recipe.md).

`python tools/recipe.py --out recipe` makes the data and runs all stages in recipe/; this one by hand, in that folder:

python tools/random_encoder.py --out weights/encoder_tiny
ualm train --config configs/align_tiny.py --workdir runs/align_tiny --config.train.encoder=weights/encoder_tiny
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_tiny


def get_config() -> ConfigDict:
    config = ualm_tiny.get_config()
    config.train.update(trainable=("adapter", "embed[audio]", "audio_head"), steps=50, save_interval=50)
    config.optimizer.update(schedule="constant", warmup_steps=5)
    config.eval.prompts = ()
    return config
