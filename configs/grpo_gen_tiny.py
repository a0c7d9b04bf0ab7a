"""Online preference learning of a tiny model that makes sounds: GRPO with SoundScript's checker as the reward.

A line of captions.txt is a caption of the model's language (docs/post-training.md):

ualm train --config configs/grpo_gen_tiny.py --workdir runs/grpo_gen_tiny --config.grpo.prompts=captions.txt \
    --config.train.init_from=runs/ualm_gen_tiny
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_gen_tiny


def get_config() -> ConfigDict:
    config = ualm_gen_tiny.get_config()
    config.data.update(seq_len=256, batch_size=32)  # four captions a step, eight answers of 2 s to each
    # Chosen for a model of a million parameters; beta as in Resonate (GRPO for text to audio).
    config.optimizer.update(schedule="constant", peak_lr=1e-4, warmup_steps=5)
    config.train.update(objective="grpo", init_from="runs/ualm_gen_tiny", steps=50, save_interval=25, log_every=1)
    config.grpo.update(
        prompts="captions.txt", scorer="soundscript", group_size=8, seconds=2.0, kl_weight=0.04, slots=32
    )
    config.eval.prompts = ()
    return config
