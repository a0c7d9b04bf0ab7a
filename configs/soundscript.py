"""The small UALM that comes with the package: SoundScript's captions and plans to sound, and texts about them.

`make box` prepares its data, trains codec and model, and puts both where `--model soundscript` finds them.

ualm train --config configs/soundscript.py --workdir runs/soundscript
"""

from ml_collections import ConfigDict

from ualm_jax.mapping import config_dict
from ualm_jax.train.config import RunConfig

SOURCES = (
    {"directory": "data/soundscript/caption", "weight": 0.7},
    {"directory": "data/soundscript/enrich", "weight": 0.1},
    {"directory": "data/soundscript/dialogue", "weight": 0.05},
    {"directory": "data/soundscript/imagine", "weight": 0.05},
    {"directory": "data/soundscript/text", "weight": 0.1},
)


def get_config() -> ConfigDict:
    config = config_dict(RunConfig)
    config.model.decoder.update(num_layers=4, width=192, num_heads=6, num_kv_heads=3, mlp_dim=576)
    config.model.vocabulary.update(text_size=261, codebook_size=128)
    config.execution.update(compute_dtype="float32", loss_chunk=4096, norm_gradient="bounded")
    config.data.update(sources=SOURCES, seq_len=384, batch_size=3, cfg_dropout=0.1, skip_long=True)
    config.optimizer.update(schedule="wsd", peak_lr=2e-3, warmup_steps=100, decay_steps=20_000, cooldown_steps=4000)
    config.optimizer.weight_decay = 0.01
    config.train.update(steps=20_000, save_interval=500, log_every=50)
    config.eval.update(every=5000, prompts=("two claps, then a low tone",), seconds=2.0)
    return config
