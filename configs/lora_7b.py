"""Fine-tuning of a UALM 7B on one card: low-rank adapters over kernels in 8 bits, as configs/lora_1_5b.py.

Some 10 GiB in training and 17 while it begins (docs/train.md).

ualm train --config configs/lora_7b.py --workdir runs/lora --config.train.init_from=runs/ualm \
    --config.data.directory=data/sounds
"""

from ml_collections import ConfigDict

from ualm_jax.configs import lora_1_5b, pretrain_7b


def get_config() -> ConfigDict:
    config = lora_1_5b.get_config()
    sized = pretrain_7b.get_config()
    config.model, config.execution.loss_chunk = sized.model, sized.execution.loss_chunk
    return config
