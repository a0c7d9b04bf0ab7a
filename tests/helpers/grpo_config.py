"""configs/grpo_gen_tiny.py, much smaller still: three groups of four texts."""

from ualm_jax.configs import grpo_gen_tiny


def get_config():
    config = grpo_gen_tiny.get_config()
    config.model.decoder.update(num_layers=1, width=32, num_heads=2, num_kv_heads=2, mlp_dim=64)
    config.model.vocabulary.update(text_size=256, codebook_size=32)
    config.data.update(seq_len=32, batch_size=12)
    config.optimizer.update(peak_lr=1e-2, warmup_steps=0)
    config.train.update(steps=4, log_every=1, save_interval=2)
    config.grpo.update(modality="text", seconds=None, max_tokens=8, group_size=4, slots=12)
    config.mesh.update(data=1, fsdp=1, tensor=1)
    return config
