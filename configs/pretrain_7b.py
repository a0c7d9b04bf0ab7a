"""Pre-training from Qwen2.5-7B sizes, those of UALM.

Optimiser as the reference's, 660 000 steps as in the paper; a step reads 256 x 4 096 positions.

One machine of 8 accelerators (rows per step are split by train.grad_accum_steps so that each device holds 1 at a time):
  ualm data prepare --source manifest --input sounds.jsonl --out data/sounds \
      --tokenizer weights/base/tokenizer --codec weights/base/codec   (converted: docs/convert.md)
  ualm train --config configs/pretrain_7b.py --workdir runs/pretrain_7b \
      --config.data.directory=data/sounds --config.train.grad_accum_steps=32

Many machines, one process per machine; SLURM and TPU pods say who takes part:
  srun ualm train --distributed auto --config configs/pretrain_7b.py --workdir /shared/pretrain_7b \
      --config.data.directory=/shared/data
  gcloud compute tpus tpu-vm ssh NAME --worker=all --command="ualm train --distributed auto ..."   (the same arguments)
  On TPUs with less memory split further: --config.mesh.fsdp=64

What fits, and how fast it can be, before anything is rented:
  ualm compile --config configs/pretrain_7b.py --topology v5e:16x16 --config.mesh.fsdp=64
"""

import dataclasses

from ml_collections import ConfigDict

from ualm_jax.configs import pretrain_1_5b
from ualm_jax.models.config import QWEN2_5


def get_config() -> ConfigDict:
    config = pretrain_1_5b.get_config()
    config.model.decoder.update(dataclasses.asdict(QWEN2_5["7b"]))
    config.model.vocabulary.text_size = 152064
    config.execution.update(remat="full", loss_chunk=4480)
    config.optimizer.decay_steps = config.train.steps = 660_000
    return config
