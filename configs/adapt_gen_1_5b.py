"""Adaptation of UALM-Gen to its own sounds: cross-entropy on the winners that preference learning will be given.

The paper: about 1 000 steps; without them the loss of preference learning spikes (its Fig. 5c). Not published, so
chosen here: a constant 2e-6 after a warm-up of 50 steps, ten times the rate of dpo_gen_1_5b, and 32 rows of 4 096
positions a step.
data/prefer/winners is made by `ualm prefer build` (docs/post-training.md).

One machine of 8 accelerators:
  ualm train --config configs/adapt_gen_1_5b.py --workdir runs/adapt_gen --config.data.directory=data/prefer/winners \
      --config.train.init_from=runs/ualm_gen
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_gen_1_5b


def get_config() -> ConfigDict:
    config = ualm_gen_1_5b.get_config()
    config.data.batch_size = 32
    config.optimizer.update(schedule="constant", peak_lr=2e-6, warmup_steps=50)
    config.train.steps = 1000
    config.eval.every = 500
    return config
