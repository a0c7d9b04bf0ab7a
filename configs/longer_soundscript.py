"""The model in the box makes sounds better: trained on, mostly on captions, in rows that attention's kernels take.

It begins as the model in the box, or as what configs/soundscript.py made, and its encoder and adapter stay as they are
(configs/encoder_soundscript.py comes after it): 369 M positions, for a card, with
--config.execution.compute_dtype=bfloat16:

ualm train --config configs/longer_soundscript.py --workdir runs/longer
"""

from ml_collections import ConfigDict

from ualm_jax.configs import soundscript
from ualm_jax.weights.shipped import located

TRAINED = ("decoder", "embed", "stream_embed", "text_head", "audio_head")
SHARES = {
    "caption": 0.58,
    "enrich": 0.12,
    "dialogue": 0.05,
    "imagine": 0.02,
    "text": 0.05,
    "describe": 0.03,
    "question": 0.04,
    "listen": 0.04,
    "reflect": 0.05,
    "critique": 0.02,
}


def get_config() -> ConfigDict:
    config = soundscript.get_config()
    sources = ({"directory": f"data/soundscript/{name}", "weight": share} for name, share in SHARES.items())
    config.data.update(sources=tuple(sources), seq_len=640, audio_slots=2)
    config.optimizer.update(warmup_steps=100, decay_steps=18_000, cooldown_steps=10_000)
    config.train.update(init_from="soundscript", encoder=str(located("soundscript") / "encoder"), trainable=TRAINED)
    config.train.update(steps=18_000, save_interval=2_000)
    config.eval.update(every=50_000, prompts=())
    return config
