"""A UALM of a million parameters: minutes on a laptop, the whole thread from sound to sound.

ualm data prepare --source soundscript --count 512 --max-seconds 2.5 --out data/script
ualm train --config configs/tiny.py --workdir runs/tiny --config.data.directory=data/script
ualm train ... --devices 8 --config.mesh.data=2 --config.mesh.fsdp=2 --config.mesh.tensor=2
"""

from ml_collections import ConfigDict

from ualm_jax.mapping import config_dict
from ualm_jax.train.config import RunConfig


def get_config() -> ConfigDict:
    config = config_dict(RunConfig)
    config.model.decoder.update(num_layers=4, width=128, num_heads=4, num_kv_heads=2, mlp_dim=384)
    config.model.vocabulary.update(text_size=256, codebook_size=64)
    config.execution.update(compute_dtype="float32", loss_chunk=4096, norm_gradient="bounded")
    config.data.update(seq_len=512, batch_size=8)
    config.optimizer.update(peak_lr=2e-3, end_lr=2e-4, warmup_steps=20, decay_steps=200)
    config.train.update(steps=200, save_interval=100)
    # What `--source soundscript` makes; with other data, captions of that.
    config.eval.update(every=200, prompts=("Three short clicks.", "A low tone, then a burst of noise."), seconds=2.0)
    return config
