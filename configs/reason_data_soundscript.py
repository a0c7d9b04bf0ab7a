"""Data of the reasoning rounds for the model in the box: SoundScript's scenes, templates, a program that listens.

ualm reason build sft --config configs/reason_data_soundscript.py --model soundscript --out data/reason_1
"""

from ml_collections import ConfigDict

from ualm_jax.configs import reason_data_7b


def get_config() -> ConfigDict:
    config = reason_data_7b.get_config()
    # The paper's proportions, at a hundredth of its sizes.
    config.update(enrichments=5000, dialogues=2500, preference_prompts=800, pairs=600, reflections=600)
    config.update(final_prompts=200, samples=4, listener="soundscript", shard_size=64)
    config.update(cfg_scale=1.2, temperature=0.5)
    return config
