"""Attention of new positions to a cache of keys and values, which they join."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ualm_jax.errors import UserError
from ualm_jax.models.attention import decode_kernel
from ualm_jax.models.attention.backend import device_of_program
from ualm_jax.models.attention.xla import softmax
from ualm_jax.models.rope import apply_rope
from ualm_jax.parallel.sharding import spec as sharding

_QUERIES = ("batch", None, "kv_heads", None, None)
_KEYS = ("batch", None, "kv_heads", None)
_CACHE = ("batch", "kv_heads", None, None)
_ANGLES = ("batch", None, None)


def attend_cache(
    q: Float[Array, "B N K G H"],
    k: Float[Array, "B N K H"],
    v: Float[Array, "B N K H"],
    rope: tuple[Float[Array, "B N H2"], Float[Array, "B N H2"]],
    keys: Float[Array, "B K T H"],
    values: Float[Array, "B K T H"],
    length: Int[Array, " B"],
    backend: str = "xla",
) -> tuple[Float[Array, "B N K G H"], Float[Array, "B K T H"], Float[Array, "B K T H"]]:
    """Attention of N new positions, which follow the `length` that each sequence has, and the cache with them in it.

    Each sees itself and everything before it. Positions from T on are not stored, except that a single new one (N = 1)
    takes the last place there is: a sequence that is full must not be continued. q and k are not rotated yet.

    backend: see `Execution.decode_attention`; more than one new position is plain XLA. Raises UserError as
    `check_backend` does.
    """
    if q.shape[1] == 1 and backend == "pallas":
        check_backend(backend, keys.shape[-1], keys.dtype.name)
        return on_each_device(attend_in_one_kernel, q, k, v, *rope, keys, values, length)
    q, k = apply_rope(q, *rope), apply_rope(k, *rope)
    return on_each_device(attend_plainly, q, k, v, keys, values, length)


def check_backend(backend: str, head_dim: int, dtype: str) -> None:
    """Raises UserError where `Execution.decode_attention` can not be used on the devices of the mesh that is set."""
    reason = decode_kernel.unable(device_of_program()[0], head_dim, dtype) if backend == "pallas" else None
    if reason is not None:
        raise UserError(f"execution.decode_attention = 'pallas' can not be used: {reason}; choose xla.")


def on_each_device(function, *arguments):
    """function(q, k, v, [cos, sin,] keys, values, length) on every device with its own sequences and heads."""
    axes = (_QUERIES, _KEYS, _KEYS, *[_ANGLES] * (len(arguments) - 6), _CACHE, _CACHE, ("batch",))
    specs = tuple(sharding(*names) for names in axes)
    mapped = jax.shard_map(function, in_specs=specs, out_specs=(specs[0], *specs[-3:-1]), check_vma=False)
    return mapped(*map(jax.reshard, arguments, specs))


def attend_in_one_kernel(q, k, v, cos, sin, keys, values, length, **how):  # noqa: PLR0913  an array each
    """`attend_cache` of single new positions on one device. how: see `decode_kernel.attend`."""
    qkv = jnp.concatenate([q[:, 0], k[:, 0, :, None], v[:, 0, :, None]], axis=2)
    attended, keys, values = decode_kernel.attend(qkv, (cos[:, 0], sin[:, 0]), keys, values, length, **how)
    return attended[:, None], keys, values


def attend_plainly(q, k, v, keys, values, length):
    """`attend_cache` on one device as plain JAX, of rotated queries and keys."""
    B, N = q.shape[:2]
    T = keys.shape[2]
    positions = length[:, None] + jnp.arange(N)
    if N == 1:  # on a CPU, a scatter that need not check its indices is as fast as a slice
        positions = jnp.minimum(positions, T - 1)
        how = dict(mode="promise_in_bounds", unique_indices=True, indices_are_sorted=True)
    else:
        how = dict(mode="drop")
    place = (jnp.arange(B)[:, None], slice(None), positions)
    keys, values = keys.at[place].set(k, **how), values.at[place].set(v, **how)
    mask = jnp.arange(T) <= positions[:, :, None]
    logits = jax.lax.platform_dependent(q, keys, cpu=_logits_keys_first, default=_logits)
    weights = softmax(logits, mask[:, None, :, None, :], q)
    return jnp.einsum("bktgs,bksh->bktgh", weights, values).swapaxes(1, 2), keys, values


def _logits(q: Float[Array, "B N K G H"], keys: Float[Array, "B K T H"]) -> Float[Array, "B K N G T"]:
    return jnp.einsum("btkgh,bksh->bktgs", q, keys, preferred_element_type=jnp.float32)


def _logits_keys_first(q: Float[Array, "B N K G H"], keys: Float[Array, "B K T H"]) -> Float[Array, "B K N G T"]:
    """The same. With keys second, a CPU allocates a copy of all of them at every call, and 32 slots took 3.7 times as
    long.
    """
    logits = jnp.einsum("bksh,btkgh->bkstg", keys, q, preferred_element_type=jnp.float32)
    return jnp.moveaxis(logits, 2, -1)
