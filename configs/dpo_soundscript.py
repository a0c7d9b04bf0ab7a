"""DPO of the model in the box on pairs of its own sounds, a few minutes on a laptop (docs/post-training.md).

Both commands take the same overrides:

ualm score --config configs/dpo_soundscript.py --config.data.directory=data/prefer/pairs \
    --config.train.init_from=runs/adapt
ualm train --config configs/dpo_soundscript.py --workdir runs/dpo --config.data.directory=data/prefer/pairs \
    --config.train.init_from=runs/adapt
"""

from ml_collections import ConfigDict

from ualm_jax.configs import adapt_soundscript


def get_config() -> ConfigDict:
    config = adapt_soundscript.get_config()
    # Room for both answers of a pair; eight of them a step or so.
    config.data.update(directory="data/prefer/pairs", seq_len=512, batch_size=4, cfg_dropout=0.0)
    # The paper's 2e-7 moves so small a model nowhere; 1e-4 learns the pairs by heart and makes it worse.
    config.optimizer.peak_lr = 2e-5
    config.train.update(objective="preference", steps=25, save_interval=25)
    config.preference.update(reference="data/prefer/reference", loss="sigmoid", beta=0.1, ce_weight=1.0)
    return config
