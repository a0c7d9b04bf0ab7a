"""sft_reason_7b's tiny twin: a caption, a rich caption of it, the sound (launch/recipe.md).

ualm data prepare --source soundscript --language 2 --task enrich --count 512 --out data/reason
ualm train --config configs/sft_reason_tiny.py --workdir runs/sft_reason_tiny --config.train.init_from=runs/ualm_tiny \
    --config.data.directory=data/reason --config.train.encoder=weights/encoder_tiny
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_tiny


def get_config() -> ConfigDict:
    config = ualm_tiny.get_config()
    config.data.update(sources=(), cfg_dropout=0.0)
    # The paper's 2e-6 moves a model of a million parameters nowhere.
    config.optimizer.update(schedule="constant", peak_lr=2e-4, warmup_steps=0)
    config.train.update(steps=50, save_interval=50)
    config.eval.prompts = ()
    return config
