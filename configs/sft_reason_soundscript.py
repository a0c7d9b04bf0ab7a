"""SFT of the reasoning rounds for the model in the box (docs/reason.md).

python tools/reason_recipe.py --size soundscript --begin soundscript --out reason
ualm train --config configs/sft_reason_soundscript.py --workdir runs/sft_1 --config.data.directory=data/reason_1/dataset
"""

from ml_collections import ConfigDict

from ualm_jax.configs import soundscript
from ualm_jax.weights.shipped import located


def get_config() -> ConfigDict:
    config = soundscript.get_config()
    config.data.update(sources=(), seq_len=768, cfg_dropout=0.0, stream_weights=())
    # A tenth of the rate that it was trained with; the paper's 2e-6 moves a model of its size nowhere.
    config.optimizer.update(schedule="constant", peak_lr=2e-4, warmup_steps=20)
    config.train.update(init_from="soundscript", encoder=str(located("soundscript") / "encoder"), trainable=("*",))
    config.train.update(steps=300, save_interval=300)
    config.eval.prompts = ()
    return config
