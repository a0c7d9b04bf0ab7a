"""UALM in JAX: one language model that hears, speaks and thinks in audio and text."""

__version__ = "0.2.0"


def __getattr__(name: str):
    # Late, so that `import ualm_jax` is instant and leaves JAX alone until it is needed.
    if name == "load":
        from ualm_jax.pretrained import load

        return load
    raise AttributeError(f"module 'ualm_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "load"]
