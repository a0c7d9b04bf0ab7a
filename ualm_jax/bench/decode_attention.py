"""Whether the kernel for decoding and plain JAX find and write the same; `ualm bench decode` asks before it times."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ualm_jax.models.attention import cache
from ualm_jax.models.config import DecoderConfig
from ualm_jax.models.rope import apply_rope, rope_tables

TOLERANCE = 2.0**-5
"""Of numbers of the size of 4 at most: two roundings to bfloat16 on the way."""


def arrays(
    decoder: DecoderConfig, sequences: int, capacity: int
) -> tuple[tuple[Array, ...], tuple[Array, Array], Int[Array, " B"]]:
    """Random (q, k, v), keys and values of a cache, and lengths of all kinds: empty, around a block of 64, full."""
    K, G, H = decoder.num_kv_heads, decoder.num_heads // decoder.num_kv_heads, decoder.head_dim
    rng = np.random.default_rng(0)
    shapes = [(sequences, 1, K, G, H), *2 * [(sequences, 1, K, H)], *2 * [(sequences, K, capacity, H)]]
    *new, keys, values = (jnp.asarray(rng.standard_normal(shape, np.float32), jnp.bfloat16) for shape in shapes)
    kinds = (0, capacity - 1, 63, 64, 65, 1, capacity, 3 * capacity // 5)
    return tuple(new), (keys, values), jnp.asarray([min(kinds[i % len(kinds)], capacity) for i in range(sequences)])


def plain(q, k, v, cos, sin, *rest):
    """`cache.attend_in_one_kernel` as plain JAX."""
    return cache.attend_plainly(apply_rope(q, cos, sin), apply_rope(k, cos, sin), v, *rest)


def furthest(one: tuple[Array, ...], two: tuple[Array, ...]) -> float:
    """The largest difference of two results; NaN where one has NaN."""
    pairs = zip(one, two, strict=True)
    return float(np.max([jnp.max(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32))) for a, b in pairs]))


def check(decoder: DecoderConfig, sequences: int, capacity: int, **how) -> float:
    """How far the kernel is from plain JAX at most, on the mesh that is set. how: see `decode_kernel.attend`.

    Raises ValueError where that is more than TOLERANCE.
    """
    new, kept, length = arrays(decoder, sequences, capacity)
    given = *new, *rope_tables(length[:, None], decoder.head_dim, decoder.rope_theta), *kept, length
    kernel = functools.partial(cache.attend_in_one_kernel, **how)
    ours, theirs = (jax.jit(functools.partial(cache.on_each_device, each))(*given) for each in (kernel, plain))
    far = furthest(ours, theirs)
    if not far <= TOLERANCE:
        raise ValueError(
            f"the kernel for decoding is off by {far:g}, more than {TOLERANCE:g}, with {sequences} sequences and room "
            f"for {capacity} positions"
        )
    return far
