"""UALM: one model that listens, makes sound and reads, after align_7b.

The paper: all but the audio encoder is trained; 660 000 steps, cosine from 1e-4; 128 devices x 5 000 tokens a step,
packed: here 128 rows of 5 120 positions. By tokens 27.7 % understanding, 33.1 % generation (read twice as often as the
others, which is in that share) and 39.2 % text. Not published, so chosen here: warm-up, weight decay and clipping, as
in the public training code.

16 machines of 8 accelerators, one process per machine; each device holds one row:
  srun ualm train --distributed auto --config configs/ualm_7b.py --workdir /shared/ualm_7b \
      --config.train.encoder=weights/af-whisper --config.train.init_from=/shared/align_7b
One machine of 8:
  ualm train --config configs/ualm_7b.py --workdir runs/ualm_7b --config.train.init_from=runs/align_7b \
      --config.train.encoder=weights/af-whisper --config.train.grad_accum_steps=16
The folders of data/ are made by `ualm data prepare` (docs/data.md); others: copy this file.
Text rows kept as they are for the whole run, as a published successor does to keep what the model knows of text:
  --config.train.trainable="('*', '!embed[text]', '!text_head[text]')"
"""

from ml_collections import ConfigDict

from ualm_jax.configs import pretrain_7b

SOURCES = (
    {"directory": "data/understanding", "weight": 0.277},
    {"directory": "data/generation", "weight": 0.331},
    {"directory": "data/text", "weight": 0.392},
)


def get_config() -> ConfigDict:
    config = pretrain_7b.get_config()
    config.model.feature_width = 1280  # of AF-Whisper
    config.data.update(sources=SOURCES, seq_len=5120, batch_size=128, cfg_dropout=0.05, audio_slots=6)
    config.train.encoder = "weights/af-whisper"
    return config
