"""Attention in plain XLA: exact for any spec, O(T^2) memory; the oracle for every other backend."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from ualm_jax.models.attention.spec import SAVED, AttentionSpec


def unable(platform: str, shape: tuple[int, ...], dtype: str) -> str | None:
    """Why this backend can not be used; None where it can."""
    return None


def attend(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    spec: AttentionSpec,
) -> Float[Array, "B T K G H"]:
    mask = spec.segment_ids[:, :, None] == spec.segment_ids[:, None, :]
    if spec.causal:
        T = q.shape[1]
        mask &= jnp.arange(T)[:, None] >= jnp.arange(T)[None, :]
    logits = jnp.einsum("btkgh,bskh->bktgs", q, k, preferred_element_type=jnp.float32)
    attended = jnp.einsum("bktgs,bskh->bktgh", softmax(logits, mask[:, None, :, None, :], q), v)
    return checkpoint_name(attended.swapaxes(1, 2), SAVED)


def softmax(logits, mask, q):
    """Weights of what `mask` allows, in float32; rounded to the dtype of `q`."""
    logits = jnp.where(mask, logits * q.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(logits, axis=-1).astype(q.dtype)
