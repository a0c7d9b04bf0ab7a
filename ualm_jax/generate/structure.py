"""The delay structure while sampling: what each stream may emit at each step.

Audio of T frames in Q streams is T + Q - 1 positions and an end token. Stream s holds codes at steps s to T + s - 1
and its pad elsewhere; stream 0 decides T by emitting its pad at step T; at step T + Q - 1 it ends the segment.
A stream's choices are columns: its pad, its codes, and the end tokens eos and eot, in this order.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ualm_jax.tokens.vocabulary import EOS, EOT, PAD, Vocabulary

OPEN = 2**30
"""Number of frames while the audio has not ended."""


def column_ids(vocabulary: Vocabulary) -> Int[np.ndarray, "S C"]:
    """The unified id of every column; where stream 0 ends, the others hold nothing."""
    streams, size = vocabulary.num_streams, vocabulary.stream_size
    audio = vocabulary.audio_start + np.arange(streams * size).reshape(streams, size)
    end = np.full((streams, 2), PAD)
    end[0] = EOS, EOT
    return np.concatenate([audio, end], axis=1).astype(np.int32)


def allowed_columns(
    step: Int[Array, ""] | Int[Array, " B"],
    frames: Int[Array, " B"],
    min_frames: Int[Array, " B"],
    max_frames: Int[Array, " B"],
    vocabulary: Vocabulary,
) -> Bool[Array, "B S C"]:
    """Columns that keep the structure; `frames` is T where stream 0 has decided it, else OPEN."""
    Q = vocabulary.num_codebooks
    stream = jnp.arange(Q)
    step = jnp.broadcast_to(step, frames.shape)
    frame = step[:, None] - stream
    code = (frame >= 0) & (frame < jnp.minimum(frames, max_frames)[:, None])
    may_stop = (step >= min_frames)[:, None]
    if Q == 1:  # no delay: the end token itself decides T
        pad, end = jnp.zeros_like(code), may_stop
    else:
        end = (step == frames + Q - 1)[:, None]
        pad = jnp.where(stream == 0, may_stop, ~code) & ~end
    return _columns(pad, code, jnp.broadcast_to(end, code.shape), vocabulary)


def reference_columns(batch: int, vocabulary: Vocabulary) -> Bool[Array, "B S C"]:
    """What the reference allows at every step: each stream its pad and codes, stream 0 also the ends."""
    every = jnp.ones((batch, vocabulary.num_streams), bool)
    return _columns(every, every, every & (jnp.arange(vocabulary.num_streams) == 0), vocabulary)


def _columns(pad, code, end, vocabulary):
    codes = jnp.broadcast_to(code[..., None], (*code.shape, vocabulary.codebook_size))
    return jnp.concatenate([pad[..., None], codes, end[..., None], end[..., None]], axis=-1)
