"""Preference learning of UALM-Reason: DPO on plans, dialogues and reflections, with the cross-entropy of the winners.

The paper: beta 0.1, cross-entropy of winners with weight 1.0, a constant 2e-7, 2 000 steps a round, two rounds, each
after a round of supervised fine-tuning. Not published, so chosen here: 32 rows of 5 120 positions a step, no warm-up.
An answer may be a plan and its sound, of several turns; only the answer is learnt (docs/post-training.md).

One machine of 8 accelerators, the same overrides for both commands (the encoder where pairs are heard):
  ualm score --config configs/dpo_reason_7b.py --config.data.directory=data/pairs_1/dataset \
      --config.train.init_from=runs/sft_1 --config.train.grad_accum_steps=4
  ualm train --config configs/dpo_reason_7b.py --workdir runs/dpo_1 --config.data.directory=data/pairs_1/dataset \
      --config.train.init_from=runs/sft_1 --config.train.grad_accum_steps=4
4 machines: srun ualm score --distributed auto ..., srun ualm train --distributed auto ..., without grad_accum_steps.
"""

from ml_collections import ConfigDict

from ualm_jax.configs import sft_reason_7b


def get_config() -> ConfigDict:
    config = sft_reason_7b.get_config()
    config.optimizer.peak_lr = 2e-7
    config.train.update(objective="preference", steps=2000)
    config.preference.update(reference="data/reference", loss="sigmoid", beta=0.1, ce_weight=1.0)
    config.eval.every = 500
    return config
