"""Prefill and the decode loop: one compiled program for all prompts, settings and seeds of the same shape.

Where guidance is on, the model's rows are R = 2 B: each prompt's conditional row and, next to it, its
unconditional twin, so that both lie on the same device. Without it R = B.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt

from ualm_jax.generate import structure
from ualm_jax.generate.sampling import draw, guide
from ualm_jax.models.audio_encoder import AudioEncoder, encode_audio
from ualm_jax.models.decoder import KVCache
from ualm_jax.models.params import cast_floats
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.sharding import reshard, spec
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import EOS, EOT, NUM_SPECIAL


class Settings(NamedTuple):
    """Settings of each row; arrays, so that changing them compiles nothing.

    opening: the modality token that opens the segment. limit: steps at most. active: rows somebody wants.
    """

    opening: Int[Array, " B"]
    temperature: Float[Array, "B S"]
    top_k: Int[Array, "B S"]
    cfg_scale: Float[Array, " B"]
    seed: UInt[Array, " B"]
    min_frames: Int[Array, " B"]
    max_frames: Int[Array, " B"]
    limit: Int[Array, " B"]
    active: Bool[Array, " B"]


class DecodeState(NamedTuple):
    """What the loop carries.

    step: rows sampled so far. tokens: those rows, 0 where none is. last: the row to feed next.
    cache: keys and values of all that was fed; the prompts fill its first slots.
    frames: T of each audio, `structure.OPEN` until stream 0 has decided it. done: rows that have ended.
    """

    step: Int[Array, ""]
    tokens: Int[Array, "B M S"]
    last: Int[Array, "B S"]
    cache: KVCache
    frames: Int[Array, " B"]
    done: Bool[Array, " B"]


@functools.partial(jax.jit, static_argnames=("num_steps", "text", "guided", "enforce", "greedy"))
def decode_segment(
    model: UALM,
    prompts: Batch,
    settings: Settings,
    encoder: AudioEncoder | None = None,
    *,
    num_steps: int,
    text: bool,
    guided: bool,
    enforce: bool,
    greedy: bool,
) -> Int[Array, "B M S"]:
    """The sampled rows [B, num_steps, S] of one segment, whole on every device.

    A row ends with eos or eot in stream 0, or without one at its limit; 0 after that.
    text: text instead of audio. enforce: keep the delay structure. greedy: no row has a temperature.
    """
    model = _with_weights_as_used(model)
    x = model.embed_batch(encode_audio(encoder, prompts))
    valid = prompts.segment_ids != 0
    cache = model.decoder.prefill(x, prompts.positions, valid, x.shape[1] + num_steps)[1]
    layers = model.decoder.unstacked()
    lengths = jnp.sum(prompts.segment_ids, axis=1)
    B, S = settings.temperature.shape
    if text:
        choose = functools.partial(_choose_text, model, settings, greedy)
    else:
        choose = functools.partial(_choose_audio, model, settings, _audio_heads(model), guided, enforce, greedy)

    def proceed(state):
        return (state.step < num_steps) & ~jnp.all(state.done)

    def advance(state):
        fed = _for_twins(state.last, guided)[:, None]
        positions = (lengths + state.step)[:, None]
        hidden, cache = model.decoder.decode(layers, model.embed_tokens(fed), positions, state.cache)
        tokens, frames = choose(hidden[:, 0], state.step, state.frames)
        tokens = jnp.where(state.done[:, None], 0, tokens)
        ended = (tokens[:, 0] == EOS) | (tokens[:, 0] == EOT) | (state.step + 1 >= settings.limit)
        all_tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, tokens[:, None], state.step, axis=1)
        return DecodeState(state.step + 1, all_tokens, tokens, cache, frames, state.done | ended)

    first = jnp.zeros((B, S), jnp.int32, out_sharding=spec("batch", None)).at[:, 0].set(settings.opening)
    start = DecodeState(
        step=jnp.int32(0),
        tokens=jnp.zeros((B, num_steps, S), jnp.int32, out_sharding=spec("batch", None, None)),
        last=first,
        cache=cache,
        frames=jnp.full((B,), structure.OPEN, jnp.int32, out_sharding=spec("batch")),
        done=~settings.active,
    )
    return reshard(jax.lax.while_loop(proceed, advance, start).tokens, None, None, None)


def _with_weights_as_used(model: UALM) -> UALM:
    """`model` with the layers' matrices and biases in the compute dtype: float32 ones would be read by every step."""
    products = nnx.Any(nnx.PathContains("attention"), nnx.PathContains("mlp"))
    scales = nnx.PathContains("scale")  # of 8-bit kernels, which are float32 until they have been multiplied
    structure, used, rest = nnx.split(model, nnx.All(products, nnx.Not(scales)), ...)
    return nnx.merge(structure, cast_floats(used, jnp.dtype(model.execution.compute_dtype)), rest)


@jax.jit
def special_logits(model: UALM, prompts: Batch, encoder: AudioEncoder | None = None) -> Float[Array, "B V"]:
    """What the model makes of each special token as the first one after its prompt."""
    hidden = model(encode_audio(encoder, prompts))
    last = jnp.sum(prompts.segment_ids, axis=1) - 1
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    head = _special_head(model, range(NUM_SPECIAL)).astype(hidden.dtype)
    return reshard(jnp.einsum("bd,dv->bv", hidden, head, preferred_element_type=jnp.float32), None, None)


def _choose_audio(model, settings, heads, guided, enforce, greedy, hidden, step, frames):
    """Next row of audio, and the frames it has."""
    vocabulary = model.architecture.vocabulary
    logits = _split_twins(_audio_logits(heads, hidden), guided)
    logits = guide(*logits, settings.cfg_scale) if guided else logits[0]
    if enforce:
        bounds = settings.min_frames, settings.max_frames
        allowed = structure.allowed_columns(step, frames, *bounds, vocabulary)
    else:
        allowed = structure.reference_columns(len(frames), vocabulary)
    column = draw(logits, allowed, settings.temperature, settings.top_k, settings.seed, step, greedy)
    stops = (column[:, 0] == 0) & (frames == structure.OPEN)
    ids = jnp.asarray(structure.column_ids(vocabulary))
    tokens = ids.at[jnp.arange(len(ids)), column].get(out_sharding=spec("batch", None))
    return tokens, jnp.where(stops, step, frames)


def _choose_text(model, settings, greedy, hidden, step, frames):
    """Next row of text: an id in stream 0, nothing in the others."""
    head = model.text_head.astype(hidden.dtype)
    logits = jnp.einsum("bd,dv->bv", hidden, head, preferred_element_type=jnp.float32)
    logits = reshard(logits, "batch", None)[:, None]
    ids = jnp.arange(logits.shape[-1])
    allowed = (ids >= NUM_SPECIAL) | (ids == EOS) | (ids == EOT)
    temperature, top_k = settings.temperature[:, :1], settings.top_k[:, :1]
    allowed = jnp.broadcast_to(allowed, logits.shape)
    chosen = draw(logits, allowed, temperature, top_k, settings.seed, step, greedy)
    return jnp.pad(chosen, ((0, 0), (0, model.architecture.vocabulary.num_streams - 1))), frames


def _audio_heads(model: UALM) -> tuple[Float[Array, "D Q W"], Float[Array, "Q W"], Float[Array, "D E"]]:
    """What makes logits of the columns of `structure`, once for the whole loop: the codebooks' columns, what each
    stream's embedding adds to its own codebook's logits, and the end tokens' columns."""
    dtype = jnp.dtype(model.execution.compute_dtype)
    codebooks = reshard(model.audio_head.astype(dtype), None, "codebooks", None)
    own = jnp.arange(codebooks.shape[1])
    bias = reshard(model.stream_bias(dtype), None, None, None).at[own, own].get(out_sharding=spec(None, None))
    return codebooks, bias, _special_head(model, (EOS, EOT)).astype(dtype)


def _special_head(model: UALM, tokens: Sequence[int]) -> Float[Array, "D E"]:
    return model.text_head.at[:, jnp.array(tokens)].get(out_sharding=spec("embed", None))


def _audio_logits(heads, hidden: Float[Array, "R D"]) -> Float[Array, "R S C"]:
    """Each stream's logits of its own columns; only stream 0 has those of the end tokens, others have 0."""
    codebooks, bias, ends = heads
    # (h + e_s) W_s = h W_s + e_s W_s: one product for all streams, in which each weight is read once.
    logits = jnp.einsum("bd,dqw->bqw", hidden, codebooks, preferred_element_type=jnp.float32)
    logits = reshard(logits, "batch", None, None) + bias
    end = jnp.einsum("bd,de->be", hidden, ends, preferred_element_type=jnp.float32)[:, None]
    end = jnp.pad(end, ((0, 0), (0, logits.shape[1] - 1), (0, 0)))
    return jnp.concatenate([logits, end], axis=-1)


def _for_twins(x: Array, guided: bool) -> Array:
    """[B, ...] for the R rows of the model."""
    if not guided:
        return x
    twice = jnp.broadcast_to(x[:, None], (len(x), 2, *x.shape[1:]))
    return jnp.reshape(twice, (-1, *x.shape[1:]), out_sharding=spec("batch", *[None] * (x.ndim - 1)))


def _split_twins(x: Array, guided: bool) -> tuple[Array, ...]:
    """[R, ...] as the conditional rows [B, ...] and, if there are any, the unconditional ones."""
    if not guided:
        return (x,)
    pairs = jnp.reshape(x, (-1, 2, *x.shape[1:]), out_sharding=spec("batch", *[None] * x.ndim))
    return pairs[:, 0], pairs[:, 1]
