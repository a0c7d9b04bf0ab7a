"""Weights on disk: reading what this package, `ualm convert` and Hugging Face's tools leave, whole or not at all."""
