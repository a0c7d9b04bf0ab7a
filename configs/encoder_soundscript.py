"""The model in the box hears what it makes: its encoder and adapter, on sounds as its codec leaves them.

The decoder stays as it is, so that what the model makes does, too: the last that it learns. `make box` prepares
data/soundscript/through-codec (tools/box_sounds.py).

ualm train --config configs/encoder_soundscript.py --workdir runs/encoder \
    --config.train.init_from=runs/longer --config.train.encoder=runs/longer
"""

from ml_collections import ConfigDict

from ualm_jax.configs import soundscript
from ualm_jax.weights.shipped import located

SHARES = {"through-codec": 0.55, "listen": 0.15, "describe": 0.1, "question": 0.1, "critique": 0.1}


def get_config() -> ConfigDict:
    config = soundscript.get_config()
    sources = ({"directory": f"data/soundscript/{name}", "weight": share} for name, share in SHARES.items())
    config.data.update(sources=tuple(sources), seq_len=384, batch_size=4, audio_slots=6)
    config.data.update(cfg_dropout=0.0, stream_weights=())
    config.optimizer.update(kind="adamw", peak_lr=5e-4, warmup_steps=20, decay_steps=700, cooldown_steps=450)
    config.train.update(init_from="soundscript", encoder=str(located("soundscript") / "encoder"))
    config.train.update(trainable=("encoder", "adapter"), steps=700, save_interval=100, log_every=20)
    config.eval.prompts = ()
    return config
