"""The k-th largest entry of each row, found bit by bit: no row is sorted for the sake of one of its entries."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int

from ualm_jax.models.triton import triton

_WIDEST = 4096  # columns of a row that one block of a GPU holds in registers
_WARPS = 4


def kth_largest(x: Float[Array, "*rows C"], k: Int[Array, "*rows"]) -> Float[Array, "*rows"]:
    """The k-th largest of each row, 1 <= k <= C, in float32: what at least k entries reach.

    On NVIDIA GPUs a row of codes is one block of one kernel: as plain JAX the search is thirty kernels, of some
    450 that a step of decoding a 1.5B is.
    """

    def search(x, k):
        return largest(x, lambda reached: jnp.sum(reached, axis=-1) >= k[..., None])

    if x.shape[-1] > _WIDEST or triton is None:
        return search(x, k)
    return jax.lax.platform_dependent(x, k, cuda=in_one_kernel, default=search)


def in_one_kernel(x: Float[Array, "*rows C"], k: Int[Array, "*rows"], interpret: bool = False) -> Float[Array, "*rows"]:
    """`kth_largest` on an NVIDIA GPU. interpret: run the kernel's steps as plain JAX, on any platform; for tests."""
    C = x.shape[-1]
    found = pl.pallas_call(
        _kernel,
        grid=(k.size,),
        out_shape=jax.ShapeDtypeStruct((k.size,), jnp.float32),
        compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
        interpret=interpret,
        name="kth_largest",
    )(x.reshape(-1, C), k.reshape(-1))
    return found.reshape(k.shape)


def _kernel(x_ref, k_ref, found_ref):
    row, C = pl.program_id(0), x_ref.shape[1]
    column = jnp.arange(pl.next_power_of_2(C), dtype=jnp.int32)  # Triton wants powers of two
    x = jnp.where(column < C, x_ref[row, jnp.minimum(column, C - 1)], -jnp.inf)
    k = k_ref[row]
    ordered = _in_order(jax.lax.bitcast_convert_type(x, jnp.int32))

    def bit(index, found):
        candidate = found + (jnp.int32(1) << (31 - index))  # the first one, the sign, wraps from the least number to 0
        return jnp.where(jnp.sum((ordered >= candidate).astype(jnp.int32)) >= k, candidate, found)

    found = jax.lax.fori_loop(0, 32, bit, jnp.int32(-(1 << 31)))
    found_ref[row] = jax.lax.bitcast_convert_type(_in_order(found), jnp.float32)


def _in_order(bits: Int[Array, "..."]) -> Int[Array, "..."]:
    """Bits of floats as integers in the order of the floats, and back."""
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def largest(
    x: Float[Array, "*rows C"], enough: Callable[[Bool[Array, "*rows n C"]], Bool[Array, "*rows n"]]
) -> Float[Array, "*rows"]:
    """The largest float t of each row for which `enough` holds of the entries x >= t, given as [*rows, candidates, C].

    Two bits of the answer at a time; what is enough need not be known when this is compiled.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)  # as unsigned integers, in the order of the floats
    found = jnp.zeros(x.shape[:-1], jnp.uint32)
    for shift in range(30, -1, -2):
        candidates = found[..., None] | (jnp.arange(1, 4, dtype=jnp.uint32) << shift)
        holds = enough(ordered[..., None, :] >= candidates[..., None])
        # It holds the less the larger the candidate, so the number for which it does is the digit.
        digit = jnp.sum(holds, axis=-1).astype(jnp.uint32)
        found = found | (digit << shift)
    return jax.lax.bitcast_convert_type(jnp.where(found >= sign, found ^ sign, ~found), jnp.float32)
