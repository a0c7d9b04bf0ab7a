"""A smaller UALM of scenes of at most 1.2 s: one core trains it from random weights in two hours (docs/soundscript.md).

It hears by the encoder of the model in the box, which stays as it is. Its data, for TASK and COUNT caption_to_audio
40000, text 20000, describe 3000, question 4000, listen 2000:

ualm data prepare --source soundscript --language 2 --task TASK --count COUNT --max-seconds 1.2 \
    --codec ualm_jax/shipped/soundscript/codec --out data/short/TASK
ualm train --config configs/short_soundscript.py --workdir runs/short
"""

from ml_collections import ConfigDict

from ualm_jax.configs import soundscript
from ualm_jax.weights.shipped import located

SHARES = {"caption_to_audio": 0.5, "text": 0.15, "describe": 0.12, "question": 0.13, "listen": 0.1}
STEPS = 8_000


def get_config() -> ConfigDict:
    config = soundscript.get_config()
    config.model.decoder.update(num_layers=4, width=128, num_heads=4, num_kv_heads=2, mlp_dim=384)
    sources = ({"directory": f"data/short/{name}", "weight": share} for name, share in SHARES.items())
    config.data.update(sources=tuple(sources), seq_len=192, batch_size=8)
    config.optimizer.update(decay_steps=STEPS, cooldown_steps=2 * STEPS // 3)
    config.train.update(steps=STEPS, trainable=("*",), encoder=str(located("soundscript") / "encoder"))
    config.eval.update(every=STEPS, prompts=())
    return config
