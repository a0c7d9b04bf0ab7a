"""configs/dpo_gen_tiny.py, much smaller still."""

from ualm_jax.configs import dpo_gen_tiny


def get_config():
    config = dpo_gen_tiny.get_config()
    config.model.decoder.update(num_layers=1, width=32, num_heads=2, num_kv_heads=2, mlp_dim=64)
    config.model.vocabulary.update(text_size=256, codebook_size=32)
    config.data.update(seq_len=192, batch_size=4, packing_bins=4)
    config.optimizer.update(peak_lr=1e-2, warmup_steps=1)
    config.train.update(steps=6, log_every=1, save_interval=3)
    config.mesh.update(data=1, fsdp=1, tensor=1)
    return config
