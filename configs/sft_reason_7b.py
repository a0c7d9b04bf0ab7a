"""UALM-Reason: supervised fine-tuning of ualm_7b on plans, dialogues and self-reflection, in two rounds.

The paper: 15 000 steps a round at a constant 2e-6, then 2e-7, all but the audio encoder trained; round 1 on 500 000
enrichments and 250 000 dialogues, round 2 on these and 60 000 reflections; dpo_reason_7b follows each. Not published,
so chosen here: 32 rows of 5 120 positions a step (post-training took 8 to 32 devices), no warm-up, no dropped
conditions.
Messages that are only read, such as a first attempt, say so in the data ("learn", docs/data.md).

One machine of 8 accelerators; 4 machines, one process per machine, go without grad_accum_steps and with srun and
--distributed auto as in ualm_7b:
  ualm train --config configs/sft_reason_7b.py --workdir runs/sft_1 --config.train.init_from=runs/ualm_7b \
      --config.train.encoder=weights/af-whisper --config.train.grad_accum_steps=4 \
      --config.data.directory=data/reason_1/dataset
  ualm train --config configs/sft_reason_7b.py --workdir runs/sft_2 --config.train.init_from=runs/dpo_1 \
      --config.train.encoder=weights/af-whisper --config.train.grad_accum_steps=4 --config.optimizer.peak_lr=2e-7 \
      --config.data.sources="({'directory':'data/reason_1/dataset'},{'directory':'data/reflections/dataset'})"
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_7b


def get_config() -> ConfigDict:
    config = ualm_7b.get_config()
    config.data.update(sources=(), batch_size=32, cfg_dropout=0.0)
    config.optimizer.update(schedule="constant", peak_lr=2e-6, warmup_steps=0)
    config.train.steps = 15_000
    config.eval.every = 3000
    return config
