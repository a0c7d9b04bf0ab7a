"""UALM in JAX: one language model that hears, speaks and thinks in audio and text."""

__version__ = "0.1.0"
