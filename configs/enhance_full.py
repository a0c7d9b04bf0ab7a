"""An enhancer about the size of ETTA's autoencoder, 155 M parameters, with discriminators: for your 48 kHz stereo.

ualm enhance train --config configs/enhance_full.py --workdir runs/enhancer --config.data.folder=sounds/
ualm enhance train ... --config.pairs.codec=codec/   a share of the crops passes the codec, as what a model makes has
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "enhancer": {
                "frame": 80,
                "width": 1024,
                "mlp_width": 3072,
                "encoder_blocks": 8,
                "decoder_blocks": 16,
                "kernel_size": 7,
                "latent_width": 64,
                "latent_stride": 2,
                "noise_bands": 121,
                "causal": False,
                "crossover_hz": 7000,
                "mid_side": True,
            },
            "data": {
                "folder": placeholder(str),
                "soundscript": 20_000,
                "language": 2,
                "workers": 0,
                "threads": 8,
                "seed": 0,
                "batch_size": 64,
                "frames": 128,
                "gain_db": (-12.0, 3.0),
            },
            "pairs": {
                "codec": placeholder(str),
                "codec_share": 0.5,
                "equaliser_share": 0.3,
                "equaliser_db": 6.0,
                "noise_share": 0.2,
                "noise_db": (-60.0, -30.0),
            },
            "loss": {
                "convergence": 1.0,
                "log": 1.0,
                "mel": 1.0,
                "level": 0.02,
                "divergence": 1e-4,
                "windows": (2048, 1024, 512, 256, 128),
                "mel_windows": (2048, 1024, 512, 256, 128, 64),
                "mel_bands": (320, 160, 80, 40, 20, 10),
            },
            "adversarial": {
                "begin": 50_000,
                "share": 0.3,
                "feature_matching": 2.0,
                "discriminators": {"periods": (2, 3, 5, 7, 11), "windows": (2048, 1024, 512), "width": 32},
            },
            "optimizer": {
                "peak_lr": 1.5e-4,
                "end_lr": 1e-5,
                "warmup_steps": 1000,
                "decay_steps": 1_000_000,
                "beta1": 0.8,
                "beta2": 0.99,
                "eps": 1e-8,
                "weight_decay": 1e-3,
                "clip_norm": 1.0,
                "state_dtype": "float32",
            },
            "judges_optimizer": {
                "peak_lr": 3e-4,
                "end_lr": 2e-5,
                "warmup_steps": 1000,
                "decay_steps": 1_000_000,
                "beta1": 0.8,
                "beta2": 0.99,
                "eps": 1e-8,
                "weight_decay": 1e-3,
                "clip_norm": 1.0,
                "state_dtype": "float32",
            },
            "train": {
                "steps": 1_000_000,
                "seed": 0,
                "init_from": placeholder(str),
                "averaging": 0.999,
                "log_every": 100,
                "save_interval": 5000,
                "max_to_keep": 3,
            },
            "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
            "eval": {"every": 5000, "sounds": 4, "seconds": 5.0},
        }
    )
