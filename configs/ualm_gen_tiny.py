"""ualm_gen_1_5b's tiny twin: captions of SoundScript to sound, minutes on a laptop (launch/recipe.md).

ualm data prepare --source soundscript --language 2 --count 512 --out data/generation
ualm train --config configs/ualm_gen_tiny.py --workdir runs/ualm_gen_tiny --config.data.directory=data/generation
"""

from ml_collections import ConfigDict

from ualm_jax.configs import tiny


def get_config() -> ConfigDict:
    config = tiny.get_config()
    config.model.vocabulary.text_size = 261  # of SoundScript's words
    config.data.update(seq_len=512, batch_size=4, skip_long=True)
    config.optimizer.update(decay_steps=300)
    config.train.update(steps=300, save_interval=100)
    config.eval.update(every=300, prompts=("two clicks, then a long tone at c4",))
    return config
