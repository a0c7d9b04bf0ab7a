"""A UALM of a million parameters: minutes on a laptop, the whole thread from sound to sound.

ualm data prepare --source soundscript --count 512 --max-seconds 2.5 --out data/script
ualm train --config configs/tiny.py --workdir runs/tiny --config.data.directory=data/script
ualm train ... --devices 8 --config.mesh.data=2 --config.mesh.fsdp=2 --config.mesh.tensor=2
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "model": {
                "decoder": {
                    "num_layers": 4,
                    "width": 128,
                    "num_heads": 4,
                    "num_kv_heads": 2,
                    "mlp_dim": 384,
                },
                "vocabulary": {"text_size": 256, "codebook_size": 64, "num_codebooks": 8},
                "feature_width": placeholder(int),
                "adapter_layers": 1,
            },
            "execution": {
                "param_dtype": "float32",
                "compute_dtype": "float32",
                "remat": "none",
                "loss_chunk": 4096,
                "attention": "auto",
            },
            "data": {
                "directory": placeholder(str),
                "sources": (),
                "seq_len": 512,
                "batch_size": 8,
                "seed": 0,
                "cfg_dropout": 0.05,
                "packing_bins": 64,
                "num_workers": 0,
                "prefetch": 2,
                "audio_slots": 0,
                "window_frames": 400,
                "audio_encoder": "omni",
                "normalize_clips": True,
            },
            "optimizer": {
                "peak_lr": 2e-3,
                "end_lr": 2e-4,
                "warmup_steps": 20,
                "decay_steps": 200,
                "beta1": 0.9,
                "beta2": 0.95,
                "eps": 1e-8,
                "weight_decay": 3e-7,
                "clip_norm": 1.0,
                "state_dtype": "float32",
            },
            "train": {
                "steps": 200,
                "seed": 0,
                "init_from": placeholder(str),
                "encoder": placeholder(str),
                "grad_accum_steps": 1,
                "log_every": 10,
                "save_interval": 100,
                "max_to_keep": 3,
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "eval": {
                "every": 200,
                "prompts": ("Three short clicks.", "A low tone, then a burst of noise."),
                "seconds": 2.0,
                "cfg_scale": 3.0,
                "directory": placeholder(str),
                "batches": 8,
            },
        }
    )
