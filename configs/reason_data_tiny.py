"""reason_data_7b's tiny twin: SoundScript's scenes, templates, and a program that listens (launch/recipe.md).

ualm reason build sft --config configs/reason_data_tiny.py --model runs/ualm_tiny --out data/reason_1
"""

from ml_collections import ConfigDict

from ualm_jax.configs import reason_data_7b


def get_config() -> ConfigDict:
    config = reason_data_7b.get_config()
    config.update(enrichments=200, dialogues=100, preference_prompts=24, pairs=24, reflections=24, final_prompts=16)
    config.update(samples=3, listener="soundscript", shard_size=8, seconds=1.0)
    return config
