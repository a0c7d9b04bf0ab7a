"""dpo_reason_7b's tiny twin: DPO on plans, their sounds and reflections (launch/recipe.md, docs/reason.md).

ualm score --config configs/dpo_reason_tiny.py --config.data.directory=data/pairs_1/dataset \
    --config.train.init_from=runs/sft_1 --config.train.encoder=weights/encoder_tiny
ualm train --config configs/dpo_reason_tiny.py --workdir runs/dpo_1 --config.data.directory=data/pairs_1/dataset \
    --config.train.init_from=runs/sft_1 --config.train.encoder=weights/encoder_tiny
"""

from ml_collections import ConfigDict

from ualm_jax.configs import sft_reason_tiny


def get_config() -> ConfigDict:
    config = sft_reason_tiny.get_config()
    config.data.update(seq_len=2048, batch_size=1)  # room for both answers, a reflection among them
    # The paper's 2e-7 moves a model of a million parameters nowhere.
    config.optimizer.update(peak_lr=5e-5, warmup_steps=5)
    config.train.update(objective="preference", steps=50, save_interval=50)
    config.preference.update(reference="data/reference", loss="sigmoid", beta=0.1, ce_weight=1.0)
    return config
