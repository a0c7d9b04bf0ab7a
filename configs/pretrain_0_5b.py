"""Pre-training from Qwen2.5-0.5B sizes: the smallest model worth listening to.

Optimiser and schedule are the reference's (warm-up 2 000 of 500 000 steps); a step reads 256 x 4 096 positions.

One machine of 8 accelerators (rows per step are split by train.grad_accum_steps so that each device holds 4 at a time):
  ualm data prepare --source manifest --input sounds.jsonl --out data/sounds \
      --tokenizer weights/base/tokenizer --codec weights/base/codec   (converted: docs/convert.md)
  ualm train --config configs/pretrain_0_5b.py --workdir runs/pretrain_0_5b \
      --config.data.directory=data/sounds --config.train.grad_accum_steps=8

Many machines, one process per machine; SLURM and TPU pods say who takes part:
  srun ualm train --distributed auto --config configs/pretrain_0_5b.py --workdir /shared/pretrain_0_5b \
      --config.data.directory=/shared/data
  gcloud compute tpus tpu-vm ssh NAME --worker=all --command="ualm train --distributed auto ..."   (the same arguments)
  The 8 parts of fsdp are the devices of one machine; data, the rest, crosses the network.

What fits, and how fast it can be, before anything is rented:
  ualm compile --config configs/pretrain_0_5b.py --topology v5e:16x16
"""

import dataclasses

from ml_collections import ConfigDict

from ualm_jax.configs import pretrain_1_5b
from ualm_jax.models.config import QWEN2_5


def get_config() -> ConfigDict:
    config = pretrain_1_5b.get_config()
    config.model.decoder.update(dataclasses.asdict(QWEN2_5["0.5b"]))
    return config
