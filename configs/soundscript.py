"""The small UALM that comes with the package: SoundScript's sounds from captions and plans, and what it hears in them.

`make box` prepares its data, trains codec and model, and puts both where `--model soundscript` finds them. Its audio
encoder begins with random weights and is trained with it.

On a card with --config.execution.compute_dtype=bfloat16, on two cores with --config.data.batch_size=2.

python tools/random_encoder.py --out weights/soundscript --layers 3 --width 128 --mlp-dim 384 --no-normalize \
    --max-seconds 5
ualm train --config configs/soundscript.py --workdir runs/soundscript
"""

from ml_collections import ConfigDict

from ualm_jax.mapping import config_dict
from ualm_jax.train.config import RunConfig

SHARES = {
    "caption": 0.42,
    "enrich": 0.08,
    "dialogue": 0.03,
    "imagine": 0.02,
    "text": 0.04,
    "describe": 0.07,
    "question": 0.10,
    "listen": 0.08,
    "reflect": 0.11,
    "critique": 0.05,
}


def get_config() -> ConfigDict:
    config = config_dict(RunConfig)
    config.model.decoder.update(num_layers=5, width=256, num_heads=8, num_kv_heads=4, mlp_dim=768)
    config.model.vocabulary.update(text_size=261, codebook_size=128)
    config.model.feature_width = 128
    config.execution.update(compute_dtype="float32", loss_chunk=4096, norm_gradient="bounded")
    sources = ({"directory": f"data/soundscript/{name}", "weight": share} for name, share in SHARES.items())
    config.data.update(sources=tuple(sources), seq_len=576, batch_size=32, cfg_dropout=0.1, skip_long=True)
    config.data.update(audio_slots=3, stream_weights=(4.0, 1.6, 0.8, 0.5, 0.3, 0.3, 0.25, 0.25))
    config.optimizer.update(kind="muon", schedule="wsd", peak_lr=3e-3, weight_decay=0.05)
    config.optimizer.update(warmup_steps=200, decay_steps=4577, cooldown_steps=2975)
    config.train.update(steps=4577, save_interval=500, log_every=50)
    config.train.update(encoder="weights/soundscript", trainable=("*", "encoder"))
    config.eval.update(every=5000, prompts=("two claps, then a low tone",), seconds=2.0)
    return config


def get_deaf_config() -> ConfigDict:
    """Of stages that learn from what was made: by AdamW, without the encoder, and every stream as it is."""
    config = get_config()
    config.data.update(seq_len=384, batch_size=3, audio_slots=0, stream_weights=())
    config.optimizer.kind = "adamw"
    config.train.update(encoder=None, trainable=("*",))
    return config
