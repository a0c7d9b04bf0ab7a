"""Attention: what may see what (`AttentionSpec`), and who computes it (backends).

xla: plain JAX, exact, memory of order T^2; runs everywhere and is what the others are tested against.
splash: the TPU kernel that comes with JAX. tokamax: GPU kernels of the tokamax library. pallas: ours for GPUs.
Decoding attends to a cache (`attend_cache`): plain JAX, or a kernel of ours for GPUs if asked for (`decode_kernel`).
"""

from ualm_jax.models.attention.backend import attend as attend
from ualm_jax.models.attention.cache import attend_cache as attend_cache
from ualm_jax.models.attention.spec import AttentionSpec as AttentionSpec
