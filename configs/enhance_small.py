"""An enhancer of 1.4 M parameters for SoundScript: half a second of processor time a step.

ualm enhance train --config configs/enhance_small.py --workdir runs/enhancer
ualm enhance train --config configs/enhance_small.py --workdir runs/enhancer --config.data.folder=sounds/
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "enhancer": {
                "frame": 80,
                "width": 160,
                "mlp_width": 320,
                "encoder_blocks": 3,
                "decoder_blocks": 5,
                "kernel_size": 7,
                "latent_width": 48,
                "latent_stride": 2,
                "noise_bands": 61,
                "causal": False,
                "crossover_hz": 7000,
                "mid_side": True,
            },
            "data": {
                "folder": placeholder(str),
                "soundscript": 400,
                "language": 2,
                "workers": 0,
                "threads": 2,
                "seed": 0,
                "batch_size": 8,
                "frames": 48,
                "gain_db": (-9.0, 3.0),
            },
            "pairs": {
                "codec": placeholder(str),
                "codec_share": 0.5,
                "equaliser_share": 0.0,
                "equaliser_db": 6.0,
                "noise_share": 0.0,
                "noise_db": (-60.0, -30.0),
            },
            "loss": {
                "convergence": 0.5,
                "log": 1.0,
                "mel": 0.0,
                "level": 0.02,
                "divergence": 1e-5,
                "windows": (2048, 512, 128),
                "mel_windows": (2048, 512, 128),
                "mel_bands": (160, 80, 20),
            },
            "adversarial": {
                "begin": placeholder(int),
                "share": 0.3,
                "feature_matching": 2.0,
                "discriminators": {"periods": (2, 3, 5), "windows": (2048, 512), "width": 8},
            },
            "optimizer": {
                "peak_lr": 1e-3,
                "end_lr": 5e-5,
                "warmup_steps": 50,
                "decay_steps": 10_000,
                "beta1": 0.8,
                "beta2": 0.99,
                "eps": 1e-8,
                "weight_decay": 1e-4,
                "clip_norm": 1.0,
                "state_dtype": "float32",
            },
            "judges_optimizer": {
                "peak_lr": 3e-4,
                "end_lr": 3e-5,
                "warmup_steps": 50,
                "decay_steps": 10_000,
                "beta1": 0.8,
                "beta2": 0.99,
                "eps": 1e-8,
                "weight_decay": 1e-4,
                "clip_norm": 1.0,
                "state_dtype": "float32",
            },
            "train": {
                "steps": 10_000,
                "seed": 0,
                "init_from": placeholder(str),
                "averaging": 0.99,
                "log_every": 50,
                "save_interval": 500,
                "max_to_keep": 2,
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "eval": {"every": 500, "sounds": 2, "seconds": 2.0},
        }
    )
