"""Preference learning of UALM-Gen: DPO on pairs of its own sounds, with the cross-entropy of the winners.

The paper: beta 0.1, cross-entropy of winners with weight 1.0 (without it training diverges, its Fig. 5d), a constant
2e-7, 2 000 steps, all but the audio encoder trained. Not published, so chosen here: 32 rows of 4 096 positions a step,
which hold some 100 pairs of 10 s, and no warm-up.
Pairs are made by `ualm prefer build` (docs/post-training.md); the run begins with what was adapted to the winners.

One machine of 8 accelerators, the same overrides for both commands:
  ualm score --config configs/dpo_gen_1_5b.py \
      --config.data.directory=data/prefer/pairs --config.train.init_from=runs/adapt_gen
  ualm train --config configs/dpo_gen_1_5b.py --workdir runs/dpo_gen \
      --config.data.directory=data/prefer/pairs --config.train.init_from=runs/adapt_gen
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_gen_1_5b


def get_config() -> ConfigDict:
    config = ualm_gen_1_5b.get_config()
    config.data.update(batch_size=32, cfg_dropout=0.0)
    config.optimizer.update(schedule="constant", peak_lr=2e-7, warmup_steps=0)
    config.train.update(objective="preference", steps=2000)
    config.preference.update(reference="data/reference", loss="sigmoid", beta=0.1, ce_weight=1.0)
    config.eval.update(every=500)
    return config
