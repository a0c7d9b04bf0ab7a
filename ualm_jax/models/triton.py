"""Pallas' backend of Triton for NVIDIA GPUs; None where this JAX has none any more (0.11.2 calls it deprecated)."""

try:
    from jax.experimental.pallas import triton
except ImportError:
    triton = None

MISSING = "its kernels need Pallas' backend of Triton, which this JAX lacks"
