"""Fine-tuning of a UALM-Gen 1.5B, meant for one card of 24 GB: low-rank adapters over kernels in 8 bits.

`ualm compile --topology v5e:2x2 --config.data.batch_size=64`, one row of 2 048 positions on each device: 2.35 GiB of
weights, adapters and moments, 2.97 GiB at the peak; by the compiler for NVIDIA GPUs (`--topology h100:1`) 2.90 GiB.
Rank 16, alpha 32 on all kernels of the layers, a constant 2e-4: usual values, none is the paper's. One row of 2 048
positions at a time, 16 of them a step.

ualm train --config configs/lora_1_5b.py --workdir runs/lora --config.train.init_from=runs/ualm_gen \
    --config.data.directory=data/sounds
ualm convert export peft runs/lora --out exported-adapters   the adapters alone, as PEFT stores them
ualm convert export hf runs/lora --out exported-merged      the whole model, adapters merged
Begin with a model that knows sounds. Of a converted Qwen2.5 the rows of audio and special tokens are random and must be
trained, too: docs/train.md, "Your own sounds on one card".
What is opened of such a run (`ualm generate`, `ualm_jax.load`, train.init_from) has its adapters merged.
"""

from ml_collections import ConfigDict

from ualm_jax.configs import pretrain_1_5b
from ualm_jax.models.lora import TRAINED


def get_config() -> ConfigDict:
    config = pretrain_1_5b.get_config()
    config.lora.update(rank=16, alpha=32.0, int8_base=True)
    config.execution.update(param_dtype="bfloat16", remat="full")
    config.data.update(seq_len=2048, batch_size=16)
    config.optimizer.update(schedule="constant", peak_lr=2e-4, warmup_steps=100)
    config.train.update(trainable=TRAINED, steps=2000, grad_accum_steps=16)
    config.mesh.fsdp = 1
    config.eval.every = 1000
    return config
