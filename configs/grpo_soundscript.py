"""GRPO of the model in the box, with SoundScript's checker as the reward (docs/post-training.md).

A line of captions.txt is a caption of docs/soundscript.md:

ualm train --config configs/grpo_soundscript.py --workdir runs/grpo --config.grpo.prompts=captions.txt
"""

from ml_collections import ConfigDict

from ualm_jax.configs import soundscript


def get_config() -> ConfigDict:
    config = soundscript.get_deaf_config()
    # Four captions a step, eight answers to each; no sound is longer than 4 s, which are 200 positions.
    config.data.update(sources=(), seq_len=256, batch_size=32, cfg_dropout=0.0)
    config.optimizer.update(schedule="constant", peak_lr=1e-4, warmup_steps=2)
    config.train.update(objective="grpo", init_from="soundscript", steps=12, save_interval=4, log_every=1)
    config.grpo.update(prompts="captions.txt", scorer="soundscript", group_size=8, kl_weight=0.04, slots=16)
    config.eval.prompts = ()
    return config
