"""Flash attention on GPUs that computes only the blocks of each document, forwards and backwards: Pallas, by Triton.

tokamax's backward kernels mask by segment and compute every block of the causal triangle; with many documents in a row
most of that is thrown away. Here what may be seen is a range of keys for each query, and of queries for each key; a
block of queries walks from the first block of keys that any of them sees to the last, and back likewise.

Sources: Dao et al., FlashAttention, 2022 (algorithms 1 and 4), and FlashAttention-2, 2023, for two backward kernels,
one that sums over keys and one that sums over queries.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from ualm_jax.models.attention.sharded import on_each_device
from ualm_jax.models.attention.spec import SAVED, AttentionSpec
from ualm_jax.models.triton import MISSING, triton

_HEADS = (16, 32, 64, 128)  # Triton wants powers of two, and registers hold no more
_LOWEST = -1e30  # of a logit that is masked; finite, so that differences of two are numbers


class _Blocks(NamedTuple):
    """Queries and keys of a block, and Triton's settings."""

    queries: int
    keys: int
    warps: int
    stages: int

    def params(self) -> Any:
        return triton.CompilerParams(num_warps=self.warps, num_stages=self.stages)


_FORWARD = _Blocks(queries=128, keys=64, warps=8, stages=2)
_QUERIES = _Blocks(queries=64, keys=64, warps=4, stages=2)  # gradients of queries
_KEYS = _Blocks(queries=64, keys=64, warps=8, stages=2)  # gradients of keys and values
_BLOCK = 128  # what the length must be a multiple of


class Ranges(NamedTuple):
    """What positions see: from `first` up to, not including, `end`. Along a row neither ever falls.

    keys: those that each query sees. queries: those that see each key.
    """

    first_key: Int[Array, "B T"]
    end_key: Int[Array, "B T"]
    first_query: Int[Array, "B T"]
    end_query: Int[Array, "B T"]


def unable(platform: str, shape: tuple[int, ...], dtype: str) -> str | None:
    """Why this backend can not be used; None where it can."""
    if platform not in ("gpu", "cuda"):
        return f"its kernels are for NVIDIA GPUs and this is {platform}"
    if dtype != "bfloat16":
        return f"its kernels compute in bfloat16 and this is {dtype}"
    if triton is None:
        return MISSING
    if shape[1] % _BLOCK or shape[-1] not in _HEADS:
        return (
            f"its kernels take a length that is a multiple of {_BLOCK} and a head_dim of "
            f"{', '.join(map(str, _HEADS))}, not {shape[1]} and {shape[-1]}"
        )
    return None


def attend(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    spec: AttentionSpec,
    interpret: bool = False,
) -> Float[Array, "B T K G H"]:
    """interpret: run the kernels' steps as plain JAX, on any platform; for tests."""

    def local(q, k, v, start, end):
        return _attend(q, k, v, _ranges(start, end, spec.causal), interpret)

    return on_each_device(local, q, k, v, *spec.with_ranges().ranges)


def _ranges(start: Int[Array, "B T"], end: Int[Array, "B T"], causal: bool) -> Ranges:
    """`Ranges` of positions whose segments go from `start` up to, not including, `end`."""
    if not causal:
        return Ranges(start, end, start, end)
    index = jnp.broadcast_to(jnp.arange(start.shape[1], dtype=start.dtype), start.shape)
    return Ranges(start, index + 1, index, end)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, ranges, interpret):
    return _forward(q, k, v, ranges, interpret)[0]


def _forward(q, k, v, ranges, interpret):
    B, T, K, G, H = q.shape
    blocks = _FORWARD
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, blocks.keys),
        grid=(T // blocks.queries, K * G, B),
        in_specs=[_queries(G, blocks.queries, H), *[_row_of_keys(G, T, H)] * 2, *[_positions(blocks.queries)] * 2],
        out_specs=[_queries(G, blocks.queries, H), _statistics(G, blocks.queries)],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((B, K, G, T), jnp.float32),
        ],
        compiler_params=blocks.params(),
        interpret=interpret,
        name="packed_attention_forward",
    )(q, k, v, ranges.first_key, ranges.end_key)
    out, lse = checkpoint_name(out, SAVED), checkpoint_name(lse, SAVED)
    return out, (q, k, v, ranges, out, lse)


def _backward(interpret, residuals, dout):
    q, k, v, ranges, out, lse = residuals
    B, T, K, G, H = q.shape
    delta = jnp.einsum("btkgh,btkgh->bkgt", out, dout, preferred_element_type=jnp.float32)
    blocks = _QUERIES
    one, row = _queries(G, blocks.queries, H), _row_of_keys(G, T, H)
    dq = pl.pallas_call(
        functools.partial(_query_gradient_kernel, blocks.keys),
        grid=(T // blocks.queries, K * G, B),
        in_specs=[one, row, row, one, *[_statistics(G, blocks.queries)] * 2, *[_positions(blocks.queries)] * 2],
        out_specs=one,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=blocks.params(),
        interpret=interpret,
        name="packed_attention_query_gradient",
    )(q, k, v, dout, lse, delta, ranges.first_key, ranges.end_key)
    blocks = _KEYS
    group = pl.BlockSpec((None, T, None, G, H), lambda i, n, b: (b, 0, n, 0, 0))
    statistics = pl.BlockSpec((None, None, G, T), lambda i, n, b: (b, n, 0, 0))
    one = pl.BlockSpec((None, blocks.keys, None, H), lambda i, n, b: (b, i, n, 0))
    dk, dv = pl.pallas_call(
        functools.partial(_key_gradient_kernel, blocks.queries),
        grid=(T // blocks.keys, K, B),
        in_specs=[group, one, one, group, statistics, statistics, *[_positions(blocks.keys)] * 2],
        out_specs=[one, one],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        compiler_params=blocks.params(),
        interpret=interpret,
        name="packed_attention_key_gradient",
    )(q, k, v, dout, lse, delta, ranges.first_query, ranges.end_query)
    return dq, dk, dv, None


_attend.defvjp(_forward, _backward)


def _queries(G: int, block: int, H: int) -> pl.BlockSpec:
    """A block of the queries of one head, of [B, T, K, G, H]."""
    return pl.BlockSpec((None, block, None, None, H), lambda i, n, b: (b, i, n // G, n % G, 0))


def _row_of_keys(G: int, T: int, H: int) -> pl.BlockSpec:
    """All keys that a query head reads, of [B, T, K, H]."""
    return pl.BlockSpec((None, T, None, H), lambda i, n, b: (b, 0, n // G, 0))


def _statistics(G: int, block: int) -> pl.BlockSpec:
    """A number for each query of a block, of [B, K, G, T]."""
    return pl.BlockSpec((None, None, None, block), lambda i, n, b: (b, n // G, n % G, i))


def _positions(block: int) -> pl.BlockSpec:
    """A number for each position of a block, of [B, T]."""
    return pl.BlockSpec((None, block), lambda i, n, b: (b, i))


def _forward_kernel(block, q_ref, k_ref, v_ref, first_ref, end_ref, out_ref, lse_ref):
    q, first, end = q_ref[...], first_ref[...], end_ref[...]

    def step(j, carry):
        total, highest, weight = carry
        here = pl.ds(j * block, block)
        seen = _seen(j * block, block, first, end)
        logits = jnp.where(seen, _logits(q, k_ref[here, :]), _LOWEST)
        higher = jnp.maximum(highest, jnp.max(logits, axis=1))
        weights = jnp.where(seen, jnp.exp(logits - higher[:, None]), 0.0)
        shrink = jnp.exp(highest - higher)
        total = total * shrink[:, None] + _dot(weights.astype(q.dtype), v_ref[here, :])
        return total, higher, weight * shrink + jnp.sum(weights, axis=1)

    nothing = jnp.zeros(q.shape, jnp.float32), jnp.full(q.shape[:1], _LOWEST), jnp.zeros(q.shape[:1], jnp.float32)
    total, highest, weight = _over_blocks(step, first, end, block, nothing)
    out_ref[...] = (total / weight[:, None]).astype(out_ref.dtype)
    lse_ref[...] = highest + jnp.log(weight)


def _query_gradient_kernel(  # noqa: PLR0913  a reference for each array
    block, q_ref, k_ref, v_ref, dout_ref, lse_ref, delta_ref, first_ref, end_ref, dq_ref
):
    q, dout, first, end = q_ref[...], dout_ref[...], first_ref[...], end_ref[...]
    lse, delta = lse_ref[...], delta_ref[...]

    def step(j, dq):
        here = pl.ds(j * block, block)
        k = k_ref[here, :]
        weights = jnp.exp(jnp.where(_seen(j * block, block, first, end), _logits(q, k), _LOWEST) - lse[:, None])
        slope = weights * (_dot(dout, v_ref[here, :].T) - delta[:, None])
        return dq + _dot(slope.astype(q.dtype), k)

    dq = _over_blocks(step, first, end, block, jnp.zeros(q.shape, jnp.float32))
    dq_ref[...] = (dq * q.shape[-1] ** -0.5).astype(dq_ref.dtype)


def _key_gradient_kernel(  # noqa: PLR0913  a reference for each array
    block, q_ref, k_ref, v_ref, dout_ref, lse_ref, delta_ref, first_ref, end_ref, dk_ref, dv_ref
):
    """Rows of what is computed here are keys, columns are queries."""
    k, v, first, end = k_ref[...], v_ref[...], first_ref[...], end_ref[...]

    def head(g, carry):
        def step(i, carry):
            dk, dv = carry
            here = pl.ds(i * block, block)
            q, dout = q_ref[here, g, :], dout_ref[here, g, :]
            logits = jnp.where(_seen(i * block, block, first, end), _logits(k, q), _LOWEST)
            weights = jnp.exp(logits - lse_ref[g, here][None, :])
            slope = weights * (_dot(v, dout.T) - delta_ref[g, here][None, :])
            return dk + _dot(slope.astype(q.dtype), q), dv + _dot(weights.astype(q.dtype), dout)

        return _over_blocks(step, first, end, block, carry)

    nothing = jnp.zeros(k.shape, jnp.float32)
    dk, dv = jax.lax.fori_loop(0, q_ref.shape[1], head, (nothing, nothing))
    dk_ref[...] = (dk * k.shape[-1] ** -0.5).astype(dk_ref.dtype)
    dv_ref[...] = dv.astype(dv_ref.dtype)


def _over_blocks(step, first, end, block: int, carry):
    """step(index, carry) for every block of `block` positions that any of the ranges touches."""
    return jax.lax.fori_loop(jnp.min(first) // block, (jnp.max(end) + block - 1) // block, step, carry)


def _seen(start, block: int, first, end):
    """[ranges, block]: whether a position of the block that begins at `start` lies in a range."""
    index = start + jnp.arange(block)
    return (index[None, :] >= first[:, None]) & (index[None, :] < end[:, None])


def _logits(a, b):
    return _dot(a, b.T) * a.shape[-1] ** -0.5


def _dot(a, b):
    return jnp.dot(a, b, preferred_element_type=jnp.float32)
