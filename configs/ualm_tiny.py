"""ualm_7b's tiny twin: hears, makes and reads scenes of SoundScript in the paper's shares (launch/recipe.md).

`python tools/recipe.py --out recipe` makes the data and runs all stages in recipe/; this one by hand, in that folder:

ualm train --config configs/ualm_tiny.py --workdir runs/ualm_tiny --config.train.init_from=runs/align_tiny \
    --config.train.encoder=weights/encoder_tiny
"""

from ml_collections import ConfigDict

from ualm_jax.configs import ualm_7b, ualm_gen_tiny


def get_config() -> ConfigDict:
    config = ualm_gen_tiny.get_config()
    config.model.feature_width = 64  # of tools/random_encoder.py
    config.data.update(sources=ualm_7b.SOURCES, audio_slots=4)
    config.train.encoder = "weights/encoder_tiny"
    return config
