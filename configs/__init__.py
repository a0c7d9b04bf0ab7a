"""One file per run; each says how to start it. Fields are explained in `ualm_jax/train/config.py`."""
