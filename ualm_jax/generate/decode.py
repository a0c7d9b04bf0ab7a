"""The programs of generation: read prompts, put them into the cache, begin segments, decode some steps.

Only shapes make them compile. What a person may set, which slots are taken, and how many steps to make are arrays.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ualm_jax.generate import slots as state
from ualm_jax.generate.slots import Places, Settings, Slots, on_each_device
from ualm_jax.generate.step import Work, advance
from ualm_jax.generate.weights import Weights, special_head
from ualm_jax.models.audio_encoder import AudioEncoder, encode_audio
from ualm_jax.models.decoder import KVCache
from ualm_jax.parallel.sharding import reshard, spec
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import NUM_SPECIAL


class Chunk(NamedTuple):
    """What some steps made, whole on every device.

    count: steps that each slot made, its first ones in `tokens` and `logprobs` (see `step.Sampled`). live: slots that
    go on.
    """

    tokens: Int[Array, "B N S"]
    logprobs: Float[Array, "B N S"]
    count: Int[Array, " B"]
    live: Bool[Array, " B"]


@jax.jit
def prefill(
    weights: Weights, prompts: Batch, encoder: AudioEncoder | None = None, past: KVCache | None = None
) -> tuple[KVCache, Float[Array, "B V"]]:
    """Reads prompts, one sequence each, right-padded.

    past: what the sequences hold already, if they are continued. Returns what they hold then, and what the model makes
    of each special token as the next one, whole on every device.
    """
    decoder = weights.model.decoder
    x = weights.model.embed_batch(encode_audio(encoder, prompts))
    lengths = jnp.sum(prompts.segment_ids, axis=1)
    if past is None:
        hidden, cache = decoder.prefill(weights.layers, x, lengths)
    else:
        hidden, cache = decoder.extend(weights.layers, x, lengths, past)
    last = jnp.maximum(lengths - 1, 0)[:, None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=1)[:, 0]
    head = reshard(special_head(weights.model, range(NUM_SPECIAL)).astype(hidden.dtype), None, None)
    return cache, reshard(jnp.tensordot(hidden, head, axes=1, preferred_element_type=jnp.float32), None, None)


insert = jax.jit(state.insert, donate_argnames="slots")
start = jax.jit(state.start, donate_argnames="slots")
take = jax.jit(state.take)
empty_slots = jax.jit(state.empty_slots, static_argnames=("architecture", "dtype", "slots", "sequences", "capacity"))


@functools.partial(jax.jit, donate_argnames="slots")
def stop(slots: Slots, wanted: Bool[Array, " B"]) -> Slots:
    """`slots` in which only those `wanted` go on."""
    return slots._replace(live=slots.live & wanted)


@functools.partial(jax.jit, static_argnames=("room", "work"), donate_argnames="slots")
def decode(
    weights: Weights,
    slots: Slots,
    steps: Int[Array, ""],
    until_end: Bool[Array, ""],
    *,
    room: int,
    work: Work | None = None,
) -> tuple[Slots, Chunk]:
    """Up to `steps` steps, `room` at most: fewer where no slot is live any more.

    until_end: stop as soon as any slot has ended. work: see `step.advance`.
    """
    B, S = slots.last.shape
    started = slots.live

    def proceed(carry):
        index, slots, *_ = carry
        over = jnp.where(until_end, jnp.any(started & ~slots.live), False)
        return (index < steps) & jnp.any(slots.live) & ~over

    def body(carry):
        index, slots, tokens, logprobs, count = carry
        live = slots.live
        slots, sampled = advance(weights, slots, work)

        def put(array, new):
            new = jnp.where(live[:, None], new, 0)[:, None]
            return jax.lax.dynamic_update_slice_in_dim(array, new, index, axis=1)

        return index + 1, slots, put(tokens, sampled.tokens), put(logprobs, sampled.logprobs), count + live

    def zeros(dtype, *shape):
        return jnp.zeros((B, *shape), dtype, out_sharding=spec("batch", *[None] * len(shape)))

    begin = (jnp.int32(0), slots, zeros(jnp.int32, room, S), zeros(jnp.float32, room, S), zeros(jnp.int32))
    _, slots, *made = jax.lax.while_loop(proceed, body, begin)
    chunk = Chunk(*made, slots.live)
    return slots, jax.tree.map(lambda array: reshard(array, *[None] * array.ndim), chunk)


@functools.partial(jax.jit, static_argnames=("num_steps", "text", "guided", "enforce", "greedy"))
def decode_segment(  # noqa: PLR0913  five of them are static: which program it is
    weights: Weights,
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
    """All of it as one program, for one segment per prompt: what can be timed, or compiled for another machine.

    prompts: where it is guided, each is followed by its unconditional twin. text: text instead of audio. enforce: keep
    the delay structure. greedy: no temperature is above 0. Returns the sampled tokens, whole on every device: a segment
    ends with eos or eot in stream 0, or without one at its limit, and is 0 after that.
    """
    model = weights.model
    filled, _ = prefill(weights, prompts, encoder)
    B, R = len(settings.limit), len(prompts.tokens)
    capacity = prompts.tokens.shape[1] + num_steps
    slots = empty_slots(model.architecture, model.execution.compute_dtype, B, R, capacity)
    full = jnp.full((B,), True, out_sharding=spec("batch"))
    settings = settings.with_defaults()._replace(text=full & text, enforce=full & enforce)
    slots = slots._replace(cache=filled.with_room(num_steps))
    places = on_each_device(functools.partial(_in_order, guided), Places(*[spec("batch")] * 3), settings.active)
    slots = start(slots, settings, places)
    work = Work(audio=not text, text=text, guided=guided, sampled=not greedy, filtered=False, scored=False)
    return decode(weights, slots, num_steps, False, room=num_steps, work=work)[1].tokens


def _in_order(guided: bool, active: Bool[Array, " N"]) -> Places:
    """Slot i has sequence i, or 2 i and its twin."""
    index = jnp.arange(len(active))
    cond = 2 * index if guided else index
    return Places(index, cond, cond + guided)
