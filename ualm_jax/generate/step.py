"""One step of decoding: every live slot reads its last tokens and samples the next ones."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ualm_jax.generate import structure
from ualm_jax.generate.sampling import draw, guide, penalize
from ualm_jax.generate.slots import Settings, Slots, on_each_device
from ualm_jax.generate.weights import Weights
from ualm_jax.parallel.sharding import reshard, spec
from ualm_jax.tokens.vocabulary import EOS, EOT, NUM_SPECIAL, PAD, Vocabulary


class Work(NamedTuple):
    """What a step computes. It is known when the step is compiled, so that what no slot needs is left out.

    audio, text: segments of that kind. guided: slots with two sequences. sampled: temperatures above 0. filtered:
    top-p and min-p. scored: log-probabilities.
    """

    audio: bool
    text: bool
    guided: bool
    sampled: bool
    filtered: bool
    scored: bool


PLAIN_AUDIO = Work(audio=True, text=False, guided=True, sampled=True, filtered=False, scored=False)
PLAIN = PLAIN_AUDIO._replace(text=True)
EVERYTHING = PLAIN._replace(filtered=True, scored=True)


class Sampled(NamedTuple):
    """What a step made.

    tokens: PAD in stream 0 where its logits are NaN or infinite, and nowhere else. logprobs: of the model, without
    guidance or temperature; 0 where they are not wanted, and where there is no token. frames: see `Slots`.
    """

    tokens: Int[Array, "B S"]
    logprobs: Float[Array, "B S"]
    frames: Int[Array, " B"]


class _Logits(NamedTuple):
    """Of the codebooks and ends for each sequence, of special tokens and text for each slot; None: not needed."""

    codebooks: Float[Array, "R Q W"] | None
    ends: Float[Array, "R E"] | None
    text: Float[Array, "B V"] | None
    bias: Float[Array, "S Q W"]


def advance(weights: Weights, slots: Slots, work: Work | None) -> tuple[Slots, Sampled]:
    """The slots one step on, and what they sampled; what slots that are not live sample means nothing.

    work: what the slots need; None to ask them at every step which of three programs it is.
    """
    model = weights.model
    spread = spec("batch", None, None), spec("batch")
    fed, moves = on_each_device(_for_sequences, spread, slots.owner, slots.last, slots.live)
    hidden, cache = model.decoder.decode(weights.layers, model.embed_tokens(fed), slots.cache)
    choose = functools.partial(_choose, weights, hidden[:, 0], slots._replace(cache=None))
    if work is None:
        programs = [functools.partial(choose, each) for each in (PLAIN_AUDIO, PLAIN, EVERYTHING)]
        sampled = jax.lax.switch(jnp.max(jnp.where(slots.live, _needed(slots.settings), 0)), programs)
    else:
        sampled = choose(work)

    live, first = slots.live, sampled.tokens[:, 0]
    ended = (first == EOS) | (first == EOT) | (first == PAD) | (slots.step + 1 >= slots.settings.limit)
    said = jnp.where(live & slots.settings.text, first - NUM_SPECIAL, -1)
    slots = slots._replace(
        cache=cache._replace(length=jnp.where(moves, cache.length, slots.cache.length)),
        last=jnp.where(live[:, None], sampled.tokens, slots.last),
        step=slots.step + live,
        frames=jnp.where(live, sampled.frames, slots.frames),
        live=live & ~ended,
        seen=on_each_device(_with, spec("batch", None), slots.seen, said),
    )
    return slots, sampled


def _for_sequences(owner, last, live):
    """The tokens that each sequence reads, and whether its slot is live."""
    return last.at[owner].get(mode="clip")[:, None], live.at[owner].get(mode="fill", fill_value=False)


def _with(seen, said):
    """`seen` with each slot's text id; -1 is none."""
    V = seen.shape[1]
    return seen.at[jnp.arange(len(seen)), jnp.where(said < 0, V, said)].set(True, mode="drop")


def _needed(settings: Settings) -> Int[Array, " B"]:
    """What a slot needs: 0 for `PLAIN_AUDIO`, 1 for `PLAIN`, 2 for `EVERYTHING`."""
    filtered = jnp.any((settings.top_p < 1) | (settings.min_p > 0), axis=-1)
    return jnp.where(filtered | settings.scored, 2, settings.text)


def _choose(weights: Weights, hidden: Float[Array, "R D"], slots: Slots, work: Work) -> Sampled:
    """The next tokens of every slot."""
    vocabulary = weights.model.architecture.vocabulary
    logits = _logits(weights, hidden, slots, work)
    specs = Sampled(spec("batch", None), spec("batch", None), spec("batch"))
    return on_each_device(functools.partial(_choose_here, vocabulary, work), specs, slots, logits)


def _logits(weights: Weights, hidden: Float[Array, "R D"], slots: Slots, work: Work) -> _Logits:
    def product(x, columns):
        made = jnp.tensordot(x, columns, axes=1, preferred_element_type=jnp.float32)
        return reshard(made, "batch", *[None] * (made.ndim - 1))

    codebooks = ends = text = None
    if work.audio or work.scored:
        codebooks = product(hidden, weights.codebooks)
        ends = product(hidden, weights.ends)
    if work.text or work.scored:
        of_slots = on_each_device(lambda hidden, cond: hidden[cond], spec("batch", None), hidden, slots.cond)
        text = product(of_slots, reshard(weights.model.text_head.astype(hidden.dtype), None, "vocab"))
    return _Logits(codebooks, ends, text, weights.bias)


def _choose_here(vocabulary: Vocabulary, work: Work, slots: Slots, logits: _Logits) -> Sampled:
    """`_choose` on one device."""
    own = None if logits.codebooks is None else _own_columns(logits)
    frames = slots.frames
    if work.audio:
        tokens, frames = _choose_audio(vocabulary, work, slots, own)
    if work.text:
        words = _choose_text(vocabulary, work, slots, logits.text)
        tokens = jnp.where(slots.settings.text[:, None], words, tokens) if work.audio else words
    if work.scored:
        logprobs = jnp.where(slots.settings.scored[:, None], _logprobs(vocabulary, slots, logits, own, tokens), 0)
    else:
        logprobs = jnp.zeros(tokens.shape)
    return Sampled(tokens, logprobs, frames)


def _own_columns(logits: _Logits) -> Float[Array, "R S C"]:
    """Each stream's logits of its own columns (see `structure`); only stream 0 has those of the ends, others have 0."""
    Q = logits.codebooks.shape[1]
    # (h + e_s) W_s = h W_s + e_s W_s: one product for all streams, in which each weight is read once.
    codes = logits.codebooks + logits.bias[jnp.arange(Q), jnp.arange(Q)]
    ends = jnp.pad(logits.ends[:, None], ((0, 0), (0, Q - 1), (0, 0)))
    return jnp.concatenate([codes, ends], axis=-1)


def _choose_audio(vocabulary, work, slots, own):
    """Tokens [B, S] of audio, and the frames it has."""
    settings, step, frames = slots.settings, slots.step, slots.frames
    logits = own[slots.cond]
    if work.guided:
        logits = guide(logits, own[slots.uncond], settings.cfg_scale)
    allowed = structure.allowed_columns(step, frames, settings.min_frames, settings.max_frames, vocabulary)
    allowed |= ~settings.enforce[:, None, None] & structure.reference_columns(len(frames), vocabulary)
    column = _draw(work, slots, logits, allowed)
    stops = (column[:, 0] == 0) & (frames == structure.OPEN)
    ids = jnp.asarray(structure.column_ids(vocabulary))
    tokens = ids.at[jnp.arange(len(ids)), column].get(mode="fill", fill_value=PAD)  # of logits that are not finite
    known = _given(settings, step)
    return jnp.where(known != 0, known, tokens), jnp.where(stops, step, frames)


def _given(settings: Settings, step: Int[Array, " B"]) -> Int[Array, "B S"]:
    """Tokens of this step that are known already."""
    index = step - settings.step
    count = settings.given.shape[1]
    if count == 0:
        return jnp.zeros((len(step), settings.given.shape[2]), jnp.int32)
    rows = jnp.take_along_axis(settings.given, jnp.minimum(index, count - 1)[:, None, None], axis=1)[:, 0]
    return jnp.where((index < count)[:, None], rows, 0)


def _choose_text(vocabulary, work, slots, logits):
    """Tokens [B, S] of text: an id in stream 0, nothing in the others."""
    settings = slots.settings
    first = settings._replace(**{name: getattr(settings, name)[:, :1] for name in _PER_STREAM})
    ids = jnp.arange(logits.shape[-1])
    allowed = (ids >= NUM_SPECIAL) | (ids == EOS) | (ids == EOT)
    specials = jnp.pad(slots.seen, ((0, 0), (NUM_SPECIAL, 0)))
    logits = penalize(logits, specials, settings.penalty)[:, None]
    chosen = _draw(work, slots._replace(settings=first), logits, jnp.broadcast_to(allowed, logits.shape))
    chosen = jnp.where(chosen == logits.shape[-1], PAD, chosen)  # of logits that are not finite
    return jnp.pad(chosen, ((0, 0), (0, vocabulary.num_streams - 1)))


_PER_STREAM = ("temperature", "top_k", "top_p", "min_p")


def _draw(work: Work, slots: Slots, logits, allowed) -> Int[Array, "B S"]:
    settings = slots.settings
    filters = dict(top_p=settings.top_p, min_p=settings.min_p) if work.filtered else {}
    step = settings.draws + slots.step
    return draw(
        logits, allowed, settings.temperature, settings.top_k, settings.seed, step, greedy=not work.sampled, **filters
    )


def _logprobs(vocabulary, slots, logits, own, tokens):
    """Of each stream's token among all that the loss compares it with (`models.cross_entropy`)."""
    codebooks = logits.codebooks[slots.cond][:, None] + logits.bias
    total = jax.nn.logsumexp(codebooks, axis=(2, 3))
    total = total.at[:, 0].set(jnp.logaddexp(total[:, 0], jax.nn.logsumexp(logits.text, axis=-1)))
    starts = np.array([vocabulary.audio_pad(stream) for stream in range(vocabulary.num_streams)])
    column = jnp.clip(tokens - starts, 0, vocabulary.stream_size - 1)
    picked = jnp.take_along_axis(own[slots.cond], column[..., None], axis=-1)[..., 0]
    word = jnp.minimum(tokens[:, :1], vocabulary.audio_start - 1)
    word = jnp.take_along_axis(logits.text, word, axis=-1)
    picked = jnp.where(tokens < vocabulary.audio_start, word, picked)
    return jnp.where(tokens == 0, 0, picked - total)
