"""Pre-training from Qwen2.5-1.5B sizes, those of UALM-Gen.

Optimiser and schedule are the reference's (warm-up 2 000 of 500 000 steps); a step reads 256 x 4 096 positions.

One machine of 8 accelerators (rows per step are split by train.grad_accum_steps so that each device holds 4 at a time):
  ualm data prepare --source manifest --input sounds.jsonl --out data/sounds
  ualm train --config configs/pretrain_1_5b.py --workdir runs/pretrain_1_5b \
      --config.data.directory=data/sounds --config.train.grad_accum_steps=8

Many machines, one process per machine; SLURM and TPU pods say who takes part:
  srun ualm train --distributed auto --config configs/pretrain_1_5b.py --workdir /shared/pretrain_1_5b \
      --config.data.directory=/shared/data
  gcloud compute tpus tpu-vm ssh NAME --worker=all --command="ualm train --distributed auto ..."   (the same arguments)
  The 8 parts of fsdp are the devices of one machine; data, the rest, crosses the network.

What fits, and how fast it can be, before anything is rented:
  ualm compile --config configs/pretrain_1_5b.py --topology v5e:16x16
"""

import dataclasses

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ualm_jax.models.config import QWEN2_5


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "model": {
                "decoder": dataclasses.asdict(QWEN2_5["1.5b"]),
                "vocabulary": {"text_size": 151936, "codebook_size": 1024, "num_codebooks": 8},
                "feature_width": placeholder(int),
                "adapter_layers": 1,
            },
            "execution": {
                "param_dtype": "float32",
                "compute_dtype": "bfloat16",
                "remat": "save_attention",
                "loss_chunk": 3712,
                "attention": "auto",
            },
            "data": {
                "directory": placeholder(str),
                "sources": (),
                "seq_len": 4096,
                "batch_size": 256,
                "seed": 0,
                "cfg_dropout": 0.05,
                "packing_bins": 64,
                "num_workers": 8,
                "prefetch": 2,
                "audio_slots": 0,
                "window_frames": 3000,
                "audio_encoder": "omni",
                "normalize_clips": True,
            },
            "optimizer": {
                "peak_lr": 1e-4,
                "end_lr": 0.0,
                "warmup_steps": 2000,
                "decay_steps": 500_000,
                "beta1": 0.9,
                "beta2": 0.95,
                "eps": 1e-8,
                "weight_decay": 3e-7,
                "clip_norm": 1.0,
                "state_dtype": "float32",
            },
            "train": {
                "steps": 500_000,
                "seed": 0,
                "init_from": placeholder(str),
                "encoder": placeholder(str),
                "grad_accum_steps": 1,
                "log_every": 10,
                "save_interval": 1000,
                "max_to_keep": 3,
            },
            "mesh": {"data": -1, "fsdp": 8, "tensor": 1},
            "eval": {
                "every": 5000,
                "prompts": ("Rain falls on a tin roof.", "A brass band plays a march."),
                "seconds": 10.0,
                "cfg_scale": 3.0,
                "directory": placeholder(str),
                "batches": 8,
            },
        }
    )
