"""Attention of one new position of each sequence to a cache on GPUs, in one kernel: Pallas, by Triton.

As plain JAX a layer's share of a step of decoding is six kernels or more, that rotate, write the cache, and multiply
all of it, filled or not; with few sequences each takes longer to begin than to work. Here one program has the query
heads of one key/value head of one sequence, turns them and the new key, writes the new key and value into the cache,
and reads the positions before, but none beyond. Where sequences are few and may be long, several programs share the
positions and a second kernel weighs what they found.

Sources: Dao et al., FlashAttention, 2022, for the online softmax; Dao, Haziza, Massa, Sizov, Flash-Decoding, 2023, for
the split over positions.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from ualm_jax.models.rope import rotate
from ualm_jax.models.triton import MISSING, triton

_HEADS = (32, 64, 128, 256)  # Triton wants powers of two, and products over half a head 16 numbers at least
_ROWS = 16  # of a product at least, on tensor cores
_LOWEST = -1e30  # of a logit that is masked; finite, so that differences of two are numbers


class _Blocks(NamedTuple):
    """Positions of a block, Triton's settings, and when positions are split.

    programs: what a split fills the device with, its multiprocessors. share: the capacity that a program takes before
    it is split; below it a second kernel costs more than it saves.
    """

    positions: int = 64
    warps: int = 4
    stages: int = 3
    programs: int = 132
    share: int = 256

    def splits(self, pairs: int, capacity: int) -> int:
        """Programs that share the positions of one head of one sequence, of which there are `pairs`."""
        return max(1, min(self.programs // pairs, capacity // self.share))


_BLOCKS = _Blocks()


def unable(platform: str, head_dim: int, dtype: str) -> str | None:
    """Why this can not be used; None where it can."""
    if platform not in ("gpu", "cuda"):
        return f"its kernels are for NVIDIA GPUs and this is {platform}"
    if dtype != "bfloat16":
        return f"its kernels compute in bfloat16 and this is {dtype}"
    if triton is None:
        return MISSING
    if head_dim not in _HEADS:
        return f"its kernels for decoding take a head_dim of {', '.join(map(str, _HEADS))}, not {head_dim}"
    return None


def attend(
    qkv: Float[Array, "B K heads H"],
    rope: tuple[Float[Array, "B H2"], Float[Array, "B H2"]],
    keys: Float[Array, "B K T H"],
    values: Float[Array, "B K T H"],
    length: Int[Array, " B"],
    splits: int | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "B K G H"], Float[Array, "B K T H"], Float[Array, "B K T H"]]:
    """What the queries see, of keys and values with the new ones in place `length`, or the last where that is beyond.

    qkv: of each key/value head its G queries, its key and its value (heads = G + 2), not rotated; three arrays would be
    three kernels that cut one product. rope: cosine and sine of the new positions, in float32. As in `xla.softmax`,
    weights are rounded to the dtype of the values before they multiply them; sums and the softmax are float32.
    splits: programs for the positions of a head; chosen by the shapes if None. interpret: run the kernel's steps as
    plain JAX, on any platform; for tests.
    """
    B, K, T, H = keys.shape
    G = qkv.shape[2] - 2
    splits = _BLOCKS.splits(B * K, T) if splits is None else splits
    head = pl.BlockSpec((None, None, T, H), lambda b, n, s: (b, n, 0, 0))
    angles = pl.BlockSpec((None, H // 2), lambda b, n, s: (b, 0))
    cache = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (keys, values)]
    found = [((B, K, splits, G, H), qkv.dtype if splits == 1 else jnp.float32), ((B, K, splits, G), jnp.float32)]
    found = found[:1] if splits == 1 else found
    *found, keys, values = pl.pallas_call(
        functools.partial(_kernel, splits),
        grid=(B, K, splits),
        in_specs=[
            pl.BlockSpec((None, None, G + 2, H), lambda b, n, s: (b, n, 0, 0)),
            *[angles, angles, head, head],
            pl.BlockSpec((None,), lambda b, n, s: (b,)),
        ],
        out_specs=[*map(_of_split, (shape for shape, _ in found)), head, head],
        out_shape=[*(jax.ShapeDtypeStruct(*one) for one in found), *cache],
        input_output_aliases={3: len(found), 4: len(found) + 1},
        compiler_params=triton.CompilerParams(num_warps=_BLOCKS.warps, num_stages=_BLOCKS.stages),
        interpret=interpret,
        name="decode_attention",
    )(qkv, *rope, keys, values, length)
    return found[0][:, :, 0] if splits == 1 else _combine(*found, qkv.dtype, interpret), keys, values


def _of_split(shape: tuple[int, ...]) -> pl.BlockSpec:
    """What one program finds, of [B, K, splits, ...]."""
    rest = shape[3:]
    return pl.BlockSpec((None, None, None, *rest), lambda b, n, s: (b, n, s, *[0] * len(rest)))


def _kernel(splits, qkv_ref, cos_ref, sin_ref, keys_ref, values_ref, length_ref, *out_refs):  # noqa: PLR0913
    *found_refs, new_keys_ref, new_values_ref = out_refs
    G, (T, H) = qkv_ref.shape[0] - 2, keys_ref.shape
    size, split = _BLOCKS.positions, pl.program_id(2)
    place = jnp.minimum(length_ref[...], T - 1)
    # Halves of heads stand apart, so that turning them moves nothing from one thread to another.
    halves = pl.ds(0, H // 2), pl.ds(H // 2, H // 2)
    row = jnp.arange(max(_ROWS, pl.next_power_of_2(G)))

    def turned(head):
        parts = (qkv_ref[head, half].astype(jnp.float32) for half in halves)
        return [part.astype(qkv_ref.dtype) for part in rotate(*parts, cos_ref[...], sin_ref[...])]

    q, k, v = turned(jnp.minimum(row, G - 1)), turned(G), qkv_ref[G + 1, :]

    # The new position comes from registers: what one program writes neither it nor another may read from memory, since
    # the compiler takes what is read and what is written for different memory.
    first = split == 0
    for half, part in zip(halves, k, strict=True):
        triton.store(new_keys_ref.at[place, half], part, mask=jnp.broadcast_to(first, part.shape))
    triton.store(new_values_ref.at[place, :], v, mask=jnp.broadcast_to(first, v.shape))
    own = sum(jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32), axis=1) for a, b in zip(q, k, strict=True))
    begin = (
        jnp.where(first, jnp.broadcast_to(v.astype(jnp.float32)[None, :], (len(row), H)), 0.0),
        jnp.where(first, own * H**-0.5, _LOWEST),
        jnp.where(first, jnp.ones(len(row), jnp.float32), 0.0),
    )

    def step(j, carry):
        total, highest, weight = carry
        here = pl.ds(j * size, size)
        seen = j * size + jnp.arange(size) < place

        def read(ref, columns, width):
            return triton.load(ref.at[here, columns], mask=jnp.broadcast_to(seen[:, None], (size, width)), other=0.0)

        logits = sum(_dot(a, read(keys_ref, half, H // 2).T) for a, half in zip(q, halves, strict=True)) * H**-0.5
        logits = jnp.where(seen[None, :], logits, _LOWEST)
        higher = jnp.maximum(highest, jnp.max(logits, axis=1))
        weights = jnp.exp(logits - higher[:, None])
        shrink = jnp.exp(highest - higher)
        total = total * shrink[:, None] + _dot(weights.astype(v.dtype), read(values_ref, pl.ds(0, H), H))
        return total, higher, weight * shrink + jnp.sum(weights, axis=1)

    blocks = (place + size - 1) // size
    share = (blocks + splits - 1) // splits
    total, highest, weight = jax.lax.fori_loop(split * share, jnp.minimum((split + 1) * share, blocks), step, begin)
    weight = jnp.where(weight > 0, weight, 1.0)  # of a program for which no position is left
    out = (total / weight[:, None]).astype(found_refs[0].dtype)
    real = jnp.broadcast_to((row < G)[:, None], out.shape)
    triton.store(found_refs[0].at[row[:, None], jnp.arange(H)[None, :]], out, mask=real)
    if splits > 1:
        triton.store(found_refs[1].at[row], highest + jnp.log(weight), mask=row < G)


def _combine(
    found: Float[Array, "B K splits G H"], lse: Float[Array, "B K splits G"], dtype, interpret: bool
) -> Float[Array, "B K G H"]:
    """What the programs of a head found as one, weighed by the logarithms of the sums of their weights."""
    B, K, splits, G, H = found.shape
    return pl.pallas_call(
        _combine_kernel,
        grid=(B, K, G),
        in_specs=[
            pl.BlockSpec((None, None, splits, None, H), lambda b, n, g: (b, n, 0, g, 0)),
            pl.BlockSpec((None, None, splits, None), lambda b, n, g: (b, n, 0, g)),
        ],
        out_specs=pl.BlockSpec((None, None, None, H), lambda b, n, g: (b, n, g, 0)),
        out_shape=jax.ShapeDtypeStruct((B, K, G, H), dtype),
        compiler_params=triton.CompilerParams(num_warps=_BLOCKS.warps, num_stages=1),
        interpret=interpret,
        name="decode_attention_of_splits",
    )(found, lse)


def _combine_kernel(found_ref, lse_ref, out_ref):
    splits = found_ref.shape[0]
    split = jnp.arange(pl.next_power_of_2(splits))
    real = jnp.minimum(split, splits - 1)
    lse = jnp.where(split < splits, lse_ref[real], _LOWEST)
    weights = jnp.exp(lse - jnp.max(lse))
    total = jnp.sum(found_ref[real, :] * weights[:, None], axis=0)
    out_ref[...] = (total / jnp.sum(weights)).astype(out_ref.dtype)


def _dot(a, b):
    return jnp.dot(a, b, preferred_element_type=jnp.float32)
