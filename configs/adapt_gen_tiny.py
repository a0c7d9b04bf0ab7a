"""adapt_gen_1_5b's tiny twin: cross-entropy on winners (launch/recipe.md).

ualm train --config configs/adapt_gen_tiny.py --workdir runs/adapt_gen_tiny \
    --config.data.directory=data/prefer/winners --config.train.init_from=runs/ualm_gen_tiny
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_gen_tiny


def get_config() -> ConfigDict:
    config = ualm_gen_tiny.get_config()
    config.optimizer.update(schedule="constant", peak_lr=2e-4, warmup_steps=5)
    config.train.update(steps=50, save_interval=50)
    config.eval.prompts = ()
    return config
