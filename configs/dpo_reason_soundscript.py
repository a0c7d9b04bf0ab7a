"""DPO of the reasoning rounds for the model in the box: plans, their sounds and reflections (docs/reason.md).

python tools/reason_recipe.py --size soundscript --begin soundscript --out reason
ualm score --config configs/dpo_reason_soundscript.py --config.data.directory=data/pairs_1/dataset
ualm train --config configs/dpo_reason_soundscript.py --workdir runs/dpo_1 --config.data.directory=data/pairs_1/dataset
"""

from ml_collections import ConfigDict

from ualm_jax.configs import sft_reason_soundscript


def get_config() -> ConfigDict:
    config = sft_reason_soundscript.get_config()
    config.data.update(seq_len=1536, batch_size=1)  # room for both answers, a reflection among them
    config.optimizer.update(peak_lr=2e-5)
    config.train.update(objective="preference", steps=100, save_interval=100)
    config.preference.update(reference="data/reference", loss="sigmoid", beta=0.1, ce_weight=1.0)
    return config
