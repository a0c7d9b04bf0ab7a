"""The splash attention kernel for TPUs that comes with JAX, one device's rows and heads at a time."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float

from ualm_jax.models.attention.sharded import on_each_device
from ualm_jax.models.attention.spec import SAVED, AttentionSpec

_TILE = 128  # the kernel's smallest block
_LARGEST_BLOCK = 1024
_LARGEST_INNER_BLOCK = 512


def unable(platform: str, shape: tuple[int, ...], dtype: str) -> str | None:
    """Why this backend can not be used; None where it can."""
    T, H = shape[1], shape[-1]
    if platform != "tpu":
        return f"splash is a kernel for TPUs and this is {platform}"
    if T % _TILE or H % 64:
        return f"splash needs a length that is a multiple of {_TILE} and a head_dim of 64s, not {T} and {H}"
    return None


def attend(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    spec: AttentionSpec,
    interpret: bool = False,
) -> Float[Array, "B T K G H"]:
    """interpret: run the kernel's steps as plain JAX, on any platform; for tests."""
    T, H = q.shape[1], q.shape[-1]
    q = (q.astype(jnp.float32) * H**-0.5).astype(q.dtype)

    def local(q, k, v, segment_ids):
        B, _, K, G, _ = q.shape
        kernel = kernels.make_splash_mha_single_device(
            masks.MultiHeadMask([masks.CausalMask((T, T)) if spec.causal else masks.FullMask((T, T))] * (K * G)),
            block_sizes=_blocks(T),
            residual_checkpoint_name=SAVED,  # of its output and its log-sum-exp
            interpret=interpret,
        )
        q = q.transpose(0, 2, 3, 1, 4).reshape(B, K * G, T, H)
        k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        out = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, kernels.SegmentIds(ids, ids)))(q, k, v, segment_ids)
        return out.reshape(B, K, G, T, H).transpose(0, 3, 1, 2, 4)

    return on_each_device(local, q, k, v, spec.segment_ids)


def _blocks(T: int) -> kernels.BlockSizes:
    outer, inner = _divisor(T, _LARGEST_BLOCK), _divisor(T, _LARGEST_INNER_BLOCK)
    return kernels.BlockSizes(
        block_q=outer,
        block_kv=outer,
        block_kv_compute=inner,
        block_q_dkv=outer,
        block_kv_dkv=outer,
        block_kv_dkv_compute=inner,
        use_fused_bwd_kernel=True,
    )


def _divisor(T: int, most: int) -> int:
    """The largest multiple of a tile that divides T and is at most `most`."""
    return max(size for size in range(_TILE, most + 1, _TILE) if T % size == 0)
