"""UALM-Gen: captions to sound, from Qwen2.5-1.5B. The first stage of its three: this, adapt_gen_1_5b, dpo_gen_1_5b.

The paper: 30 M captioned sounds of some 10 s, 17 B tokens. Not published, so chosen here: optimiser, schedule, tokens a
step and dropped conditions as the public training code has them (1e-4, warm-up 2 000, 32 devices x 16 000 tokens, 5 %),
and 600 000 steps, those of the checkpoint that its inference script takes.

One machine of 8 accelerators, each holding 4 rows of 4 096 positions at a time:
  ualm convert qwen2 Qwen2.5-1.5B --out weights/qwen2.5-1.5b
  ualm train --config configs/ualm_gen_1_5b.py --workdir runs/ualm_gen --config.data.directory=data/generation \
      --config.train.init_from=weights/qwen2.5-1.5b --config.train.grad_accum_steps=4
Many machines: launch/slurm.sh, launch/tpu_pod.sh; then without grad_accum_steps.
"""

from ml_collections import ConfigDict

from ualm_jax.configs import pretrain_1_5b


def get_config() -> ConfigDict:
    config = pretrain_1_5b.get_config()
    config.data.update(batch_size=128, cfg_dropout=0.05)
    config.optimizer.decay_steps = config.train.steps = 600_000
    return config
