"""Attention: what may see what (`AttentionSpec`), and who computes it (backends)."""

from ualm_jax.models.attention.spec import AttentionSpec as AttentionSpec
from ualm_jax.models.attention.xla import attend as attend
from ualm_jax.models.attention.xla import attend_cache as attend_cache
