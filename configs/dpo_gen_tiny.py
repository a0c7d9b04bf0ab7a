"""dpo_gen_1_5b's tiny twin: DPO on pairs of the model's own sounds, a few minutes on a laptop.

Pairs and winners are made by `ualm prefer build` (docs/post-training.md). Both commands take the same overrides:

ualm score --config configs/dpo_gen_tiny.py --config.data.directory=data/prefer/pairs \
    --config.train.init_from=runs/adapt_gen_tiny
ualm train --config configs/dpo_gen_tiny.py --workdir runs/dpo_gen_tiny --config.data.directory=data/prefer/pairs \
    --config.train.init_from=runs/adapt_gen_tiny
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_gen_tiny


def get_config() -> ConfigDict:
    config = ualm_gen_tiny.get_config()
    config.data.update(seq_len=1024, cfg_dropout=0.0)  # room for both answers of a pair
    # The paper's 2e-7 moves a model of a million parameters nowhere.
    config.optimizer.update(schedule="constant", peak_lr=5e-5, warmup_steps=5)
    config.train.update(objective="preference", steps=100, save_interval=50)
    config.preference.update(reference="data/reference", loss="sigmoid", beta=0.1, ce_weight=1.0)
    config.eval.prompts = ()
    return config
