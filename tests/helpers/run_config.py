"""configs/tiny.py, much smaller still: seconds per run."""

from ualm_jax.configs import tiny


def get_config():
    config = tiny.get_config()
    config.model.decoder.update(num_layers=2, width=32, num_heads=2, num_kv_heads=2, mlp_dim=64)
    config.model.vocabulary.codebook_size = 32
    config.data.update(seq_len=160, batch_size=4, packing_bins=8)
    config.optimizer.decay_steps = 1000
    config.train.update(steps=20, log_every=1, save_interval=10)
    config.eval.prompts = ()
    return config
