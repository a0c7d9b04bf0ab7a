"""A codec of X-codec's size, 8 codebooks of 1 024 at 50 Hz, without its semantic branch: for your 16 kHz sounds.

ualm codec train --config configs/codec_16k.py --workdir runs/codec --config.data.folder=sounds/

The network is that of the released X-codec's acoustic half. Learning rate, betas, discriminators and dropout of
codebooks are those that the authors of DAC published, and so are batches of 72 crops of 0.38 s, here 64 of 20 frames.
Weights of the losses are those of configs/codec_small.py, untried at this size.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "codec": {
                "num_codebooks": 8,
                "codebook_size": 1024,
                "encoder_hidden_size": 64,
                "decoder_hidden_size": 1024,
                "hidden_size": 256,
                "downsampling_ratios": (8, 5, 4, 2),
                "upsampling_ratios": (8, 5, 4, 2),
                "linear_ends": False,
            },
            "data": {
                "folder": placeholder(str),
                "soundscript": 8000,
                "language": 2,
                "workers": 0,
                "threads": 8,
                "seed": 0,
                "batch_size": 64,
                "frames": 20,
                "gain_db": (-12.0, 3.0),
            },
            "loss": {
                "absolute": 0.1,
                "squared": 0.05,
                "linear": 0.5,
                "log": 5.0,
                "silent": 1.0,
                "windows": (2048, 1024, 512, 256, 128, 64),
                "commitment": 0.03,
            },
            "quantizer": {
                "begin": 2000,
                "kmeans_frames": 262_144,
                "kmeans_rounds": 20,
                "decay": 0.99,
                "dead_below": 0.03,
                "dropout": 0.5,
            },
            "adversarial": {
                "begin": 20_000,
                "share": 0.3,
                "feature_matching": 2.0,
                "discriminators": {"periods": (2, 3, 5, 7, 11), "windows": (2048, 1024, 512), "width": 32},
            },
            "optimizer": {
                "peak_lr": 1e-4,
                "end_lr": 1e-6,
                "warmup_steps": 1000,
                "decay_steps": 400_000,
                "beta1": 0.8,
                "beta2": 0.99,
                "eps": 1e-8,
                "weight_decay": 1e-4,
                "clip_norm": 5.0,
                "state_dtype": "float32",
            },
            "judges_optimizer": {
                "peak_lr": 1e-4,
                "end_lr": 1e-6,
                "warmup_steps": 1000,
                "decay_steps": 400_000,
                "beta1": 0.8,
                "beta2": 0.99,
                "eps": 1e-8,
                "weight_decay": 1e-4,
                "clip_norm": 1.0,
                "state_dtype": "float32",
            },
            "train": {
                "steps": 400_000,
                "seed": 0,
                "init_from": placeholder(str),
                "averaging": 0.999,
                "log_every": 100,
                "save_interval": 5000,
                "max_to_keep": 3,
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "eval": {"every": 5000, "sounds": 4, "seconds": 5.0},
        }
    )
