"""Cross-entropy of all streams under the shared head, a few columns of the vocabulary at a time.

Stream s is predicted from h + e_s, and (h + e_s) W = h W + e_s W: the codebooks' columns are multiplied once for all
streams and a stream adds its own row of `bias` = e W. Looping over columns, not over positions, means that each
column of the head is gathered once and its gradient is written once, in float32; nothing of the size
[positions, vocabulary] and no second copy of the head ever exists.
The loop runs in `shard_map`: every device holds some positions (batch) and some columns (tensor), and gathers those
columns from the devices of fsdp as it comes to them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ualm_jax.parallel.sharding import spec

_HIDDEN = ("batch", None, None)
_TEXT = ("embed", "vocab")
_AUDIO = ("embed", "codebooks", None)
_BIAS = (None, "codebooks", None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def cross_entropy(
    hidden: Float[Array, "B T D"],
    text_head: Float[Array, "D V"],
    audio_head: Float[Array, "D Q W"],
    bias: Float[Array, "S Q W"],
    targets: Int[Array, "B T S"],
    chunk: int,
) -> tuple[Float[Array, "B T S"], Bool[Array, "B T S"]]:
    """Cross-entropy of every target, and whether no logit is higher than its own; logits are float32.

    Stream 0 is a softmax over text and codebooks, ids [0, V) and [V, V + QW); the others over the codebooks.
    Products are in the dtype of `hidden`. chunk: columns of the text head whose logits exist at once.
    """
    return _forward(hidden, text_head, audio_head, bias, targets, chunk)[0]


class _Softmax(NamedTuple):
    """What a softmax needs of the columns seen so far: log of the sum, the best and the picked logit; [N, S]."""

    lse: Array
    best: Array
    picked: Array

    def add(self, logits: Array, hit: Array) -> "_Softmax":
        return _Softmax(
            jnp.logaddexp(self.lse, jax.nn.logsumexp(logits, axis=-1)),
            jnp.maximum(self.best, jnp.max(logits, axis=-1)),
            self.picked + jnp.sum(jnp.where(hit, logits, 0), axis=-1),
        )


def _forward(hidden, text_head, audio_head, bias, targets, chunk):
    def local(hidden, text_head, audio_head, bias, targets):
        h, ids = _rows(hidden), _rows(targets)
        size = min(chunk, text_head.shape[1])
        none = jnp.full(ids.shape, -jnp.inf, jnp.float32)
        softmax = _Softmax(none, none, jnp.zeros_like(none))

        def add_text(zeroth, start, first):
            live = start + jnp.arange(size) >= first
            logits = jnp.where(live, _product(h, _gather(text_head, start, size, h.dtype)), -jnp.inf)
            return zeroth.add(logits, live & _hits(ids[:, 0], _text_start(text_head) + start, size))

        def add_audio(softmax, codebook):
            logits = _product(h, _gather_codebook(audio_head, codebook, h.dtype))[:, None] + bias[:, codebook]
            return softmax.add(
                logits, _hits(ids, _audio_start(text_head, audio_head, codebook), logits.shape[-1])
            ), None

        zeroth = _over_columns(add_text, _Softmax(*(x[:, 0] for x in softmax)), text_head.shape[1], size)
        softmax = _Softmax(*(x.at[:, 0].set(y) for x, y in zip(softmax, zeroth, strict=True)))
        softmax, _ = lax.scan(add_audio, softmax, jnp.arange(audio_head.shape[1]))

        top = lax.pmax(softmax.lse, "tensor")
        lse = jnp.log(lax.psum(jnp.exp(softmax.lse - top), "tensor")) + top
        picked = lax.psum(softmax.picked, "tensor")
        best = lax.pmax(softmax.best, "tensor")
        return tuple(x.reshape(targets.shape) for x in (lse - picked, picked >= best, lse))

    loss, correct, lse = _shard_map(local, (_HIDDEN, _TEXT, _AUDIO, _BIAS, _HIDDEN), (_HIDDEN, _HIDDEN, _HIDDEN))(
        hidden, text_head, audio_head, bias, targets
    )
    return (loss, correct), (hidden, text_head, audio_head, bias, targets, lse)


def _backward(chunk, residuals, cotangents):
    def local(hidden, text_head, audio_head, bias, targets, lse, weight):
        h, ids, lse, weight = _rows(hidden), _rows(targets), _rows(lse), _rows(weight)
        size = min(chunk, text_head.shape[1])

        def slopes(logits, hit, lse, weight):
            return weight[..., None] * (jnp.exp(logits - lse[..., None]) - hit)

        def add_text(grads, start, first):
            dh, dtext = grads
            kernel = _gather(text_head, start, size, h.dtype)
            live = start + jnp.arange(size) >= first
            hit = live & _hits(ids[:, 0], _text_start(text_head) + start, size)
            logits = jnp.where(live, _product(h, kernel), -jnp.inf)
            slope = slopes(logits, hit, lse[:, 0], weight[:, 0]).astype(h.dtype)
            column = _scatter(_product(h.T, slope).astype(h.dtype)).astype(dtext.dtype)
            return dh + _product(slope, kernel.T), lax.dynamic_update_slice_in_dim(dtext, column, start, axis=1)

        def add_audio(grads, codebook):
            dh, daudio, dbias = grads
            kernel = _gather_codebook(audio_head, codebook, h.dtype)
            logits = _product(h, kernel)[:, None] + bias[:, codebook]
            hit = _hits(ids, _audio_start(text_head, audio_head, codebook), logits.shape[-1])
            slope = slopes(logits, hit, lse, weight)
            total = jnp.sum(slope, axis=1).astype(h.dtype)
            column = _scatter(_product(h.T, total).astype(h.dtype)).astype(daudio.dtype)
            dbias = lax.dynamic_update_index_in_dim(dbias, jnp.sum(slope, axis=0), codebook, axis=1)
            daudio = lax.dynamic_update_index_in_dim(daudio, column, codebook, axis=1)
            return (dh + _product(total, kernel.T), daudio, dbias), None

        dh, dtext = _over_columns(
            add_text, (jnp.zeros(h.shape, jnp.float32), jnp.zeros_like(text_head)), text_head.shape[1], size
        )
        (dh, daudio, dbias), _ = lax.scan(
            add_audio, (dh, jnp.zeros_like(audio_head), jnp.zeros_like(bias)), jnp.arange(audio_head.shape[1])
        )
        dh = lax.psum(dh, "tensor").astype(h.dtype).reshape(hidden.shape)
        dbias = lax.psum(dbias, ("data", "fsdp"))
        return dh, lax.psum(dtext, "data"), lax.psum(daudio, "data"), dbias

    hidden, text_head, audio_head, bias, targets, lse = residuals
    grads = _shard_map(
        local, (_HIDDEN, _TEXT, _AUDIO, _BIAS, _HIDDEN, _HIDDEN, _HIDDEN), (_HIDDEN, _TEXT, _AUDIO, _BIAS)
    )(hidden, text_head, audio_head, bias, targets, lse, cotangents[0])
    return *grads, None


cross_entropy.defvjp(_forward, _backward)


def _shard_map(f, in_axes, out_axes):
    in_specs, out_specs = (tuple(spec(*axes) for axes in group) for group in (in_axes, out_axes))
    mapped = jax.shard_map(f, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return lambda *arrays: mapped(*map(jax.reshard, arrays, in_specs))


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _over_columns(add, carry, columns: int, chunk: int):
    """Calls add(carry, start, first) for ranges of `chunk` columns; it must not count those before `first`.

    Where `chunk` does not divide `columns`, the last range overlaps the one before, which counts the columns in both.
    The last range goes first, so that what it writes there is written over.
    """

    def step(carry, i):
        return add(carry, jnp.minimum(i * chunk, columns - chunk), i * chunk), None

    return lax.scan(step, carry, jnp.arange(-(-columns // chunk) - 1, -1, -1))[0]


def _gather(head: Array, start, size: int, dtype) -> Array:
    """[D, size] columns of a head whose rows are split over fsdp."""
    return lax.all_gather(lax.dynamic_slice_in_dim(head, start, size, axis=1).astype(dtype), "fsdp", axis=0, tiled=True)


def _gather_codebook(head: Array, codebook, dtype) -> Array:
    column = lax.dynamic_index_in_dim(head, codebook, axis=1, keepdims=False).astype(dtype)
    return lax.all_gather(column, "fsdp", axis=0, tiled=True)


def _scatter(grad: Array) -> Array:
    """The transpose of a gather: this device's rows of the sum over fsdp."""
    return lax.psum_scatter(grad, "fsdp", scatter_dimension=0, tiled=True)


def _text_start(text_head: Array) -> Array:
    """First id of this device's columns."""
    return lax.axis_index("tensor") * text_head.shape[1]


def _audio_start(text_head: Array, audio_head: Array, codebook) -> Array:
    _, codebooks, size = audio_head.shape
    text = lax.axis_size("tensor") * text_head.shape[1]
    return text + (lax.axis_index("tensor") * codebooks + codebook) * size


def _hits(ids: Array, start, size: int) -> Array:
    # A comparison with every id instead of a gather: the target may lie on another device.
    return ids[..., None] == start + jnp.arange(size)
