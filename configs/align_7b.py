"""Alignment of modalities: adapter and audio tokens of a UALM 7B, before ualm_7b trains all of it.

The paper: 1 800 steps at 5e-4 of the adapter and the audio rows of the embedding, 25 000 tokens a device. Not
published, so chosen here: 128 devices as for pre-training (640 rows of 5 120 positions a step), a constant rate after
a warm-up of 100 steps, the audio rows of the head trained too (they are as new as those of the embedding), and
ualm_7b's mixture.

16 machines of 8 accelerators; each device holds 5 rows, one at a time:
  ualm convert af-whisper audio-flamingo-3 --out weights/af-whisper
  ualm convert qwen2 Qwen2.5-7B --encoder weights/af-whisper --out weights/qwen2.5-7b
  srun ualm train --distributed auto --config configs/align_7b.py --workdir /shared/align_7b \
      --config.train.encoder=weights/af-whisper --config.train.init_from=weights/qwen2.5-7b
One machine of 8:
  ualm train --config configs/align_7b.py --workdir runs/align_7b --config.train.init_from=weights/qwen2.5-7b \
      --config.train.encoder=weights/af-whisper --config.train.grad_accum_steps=80
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_7b


def get_config() -> ConfigDict:
    config = ualm_7b.get_config()
    config.data.batch_size = 640
    config.train.update(trainable=("adapter", "embed[audio]", "audio_head"), steps=1800, grad_accum_steps=5)
    config.optimizer.update(schedule="constant", peak_lr=5e-4, warmup_steps=100)
    config.eval.every = 600
    return config
