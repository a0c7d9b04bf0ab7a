"""The decoder of configs/codec_small.py alone, further: finer windows, phases, and every sound keeps its codes.

ualm codec train --config configs/codec_small_decoder.py --workdir runs/decoder
ualm codec train ... --config.data.batch_size=16 --config.data.frames=24   on two cores

Begins with runs/codec/codec; --config.train.init_from=DIR names another.
"""

from ml_collections import ConfigDict

from ualm_jax.configs import codec_small


def get_config() -> ConfigDict:
    config = codec_small.get_config()
    config.quantizer.update(begin=0, fixed=True)
    config.loss.update(linear=1.0, phase=0.25, windows=(2048, 512, 128, 32))
    config.data.seed = 1
    config.optimizer.update(peak_lr=5e-4, weight_decay=0.0, decay_steps=5_000)
    config.train.update(steps=5_000, init_from="runs/codec/codec")
    return config
