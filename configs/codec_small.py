"""A codec of 1.8 M parameters for SoundScript: minutes on a GPU, hours on two cores.

ualm codec train --config configs/codec_small.py --workdir runs/codec
ualm codec train ... --config.data.batch_size=12 --config.data.frames=24   on two cores
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "codec": {
                "num_codebooks": 8,
                "codebook_size": 128,
                "encoder_hidden_size": 16,
                "decoder_hidden_size": 256,
                "hidden_size": 127,
                "downsampling_ratios": (20, 4, 2, 2),
                "upsampling_ratios": (2, 2, 4, 20),
                "linear_ends": True,
            },
            "data": {
                "folder": placeholder(str),
                "soundscript": 8000,
                "language": 2,
                "workers": 0,
                "threads": 2,
                "seed": 0,
                "batch_size": 32,
                "frames": 48,
                "gain_db": (-6.0, 3.0),
            },
            "loss": {
                "absolute": 0.1,
                "squared": 0.05,
                "linear": 0.5,
                "log": 5.0,
                "silent": 1.0,
                "windows": (1024, 256, 64),
                "commitment": 0.03,
            },
            "quantizer": {
                "begin": 300,
                "kmeans_frames": 32768,
                "kmeans_rounds": 12,
                "decay": 0.99,
                "dead_below": 0.03,
                "dropout": 0.0,
            },
            "adversarial": {
                "begin": placeholder(int),
                "share": 0.3,
                "feature_matching": 2.0,
                "discriminators": {"periods": (2, 3, 5), "windows": (1024, 256), "width": 8},
            },
            "optimizer": {
                "peak_lr": 3e-4,
                "end_lr": 1e-5,
                "warmup_steps": 50,
                "decay_steps": 20_000,
                "beta1": 0.9,
                "beta2": 0.99,
                "eps": 1e-8,
                "weight_decay": 1e-4,
                "clip_norm": 5.0,
                "state_dtype": "float32",
            },
            "judges_optimizer": {
                "peak_lr": 3e-4,
                "end_lr": 3e-5,
                "warmup_steps": 50,
                "decay_steps": 20_000,
                "beta1": 0.8,
                "beta2": 0.99,
                "eps": 1e-8,
                "weight_decay": 1e-4,
                "clip_norm": 1.0,
                "state_dtype": "float32",
            },
            "train": {
                "steps": 20_000,
                "seed": 0,
                "init_from": placeholder(str),
                "averaging": 0.99,
                "log_every": 50,
                "save_interval": 1000,
                "max_to_keep": 2,
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "eval": {"every": 1000, "sounds": 3, "seconds": 2.0},
        }
    )
