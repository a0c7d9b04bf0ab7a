"""Importers and exporters of foreign checkpoints; installed as `ualm_jax.convert_weights`, used by `ualm convert`."""
