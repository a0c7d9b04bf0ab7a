"""How likely a model finds given answers: log-probabilities of tokens, by the function that the loss uses."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ualm_jax.audio.mel import MelWindow
from ualm_jax.generate.prompts import Heard, bucket, check_heard, place, stack_prompts
from ualm_jax.models.audio_encoder import AudioEncoder, encode_audio
from ualm_jax.models.log_probabilities import targets
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.sharding import RULES, reshard
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Batch, Clip, Message, TokenGrid

_POSITIONS = 8192  # of a device that are read at once, unless one conversation is longer


def score(
    model: UALM,
    conversations: Sequence[Sequence[Message]],
    *,
    heard: Heard | None = None,
    encoder: AudioEncoder | None = None,
) -> list[Float[np.ndarray, "T S"]]:
    """Log-probability of every learnt token given all before it, natural logarithm, float32; 0 for other tokens.

    conversations: an entry of the result is as long as `build_grid` of its conversation. A token is compared with what
    the loss compares it with (`models.log_probabilities`), so their sum, weighted, is minus the loss. heard, encoder:
    see `segment.generate`. Conversations are packed; none sees another. A mesh must be set.
    """
    grids = [build_grid(messages, model.architecture.vocabulary) for messages in conversations]
    heard = [None] * len(grids) if heard is None else heard
    check_heard(grids, heard)
    if not grids:
        return []
    length = bucket(max(len(grid.tokens) for grid in grids))
    rows = _pack([len(grid.tokens) for grid in grids], max(length, min(bucket(_total(grids)), _POSITIONS)))
    length = bucket(max(sum(len(grids[index].tokens) for index in row) for row in rows))
    mesh = jax.sharding.get_mesh()
    shards = int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    count = shards * max(1, min(_POSITIONS // length, -(-len(rows) // shards)))
    chunk_frames = 1 if encoder is None else encoder.front_end.chunk_frames
    scores: list[np.ndarray | None] = [None] * len(grids)
    for first in range(0, len(rows), count):
        some = rows[first : first + count]
        batch = _batch(grids, heard, some + [[]] * (count - len(some)), length, chunk_frames)
        found = np.asarray(_log_probabilities(model, place(batch), encoder))
        for row, indices in enumerate(some):
            start = 0
            for index in indices:
                end = start + len(grids[index].tokens)
                scores[index] = found[row, start:end]
                start = end
    return scores


@jax.jit
def _log_probabilities(model: UALM, batch: Batch, encoder: AudioEncoder | None) -> Float[Array, "B T S"]:
    found = targets(model, encode_audio(encoder, batch))
    of_tokens = jnp.pad(found.log_probs[:, :-1], ((0, 0), (1, 0), (0, 0)))
    learnt = (batch.loss_weights != 0) & (batch.positions > 0)[:, :, None]
    return reshard(jnp.where(learnt, of_tokens, 0), None, None, None)


def _total(grids: Sequence[TokenGrid]) -> int:
    return sum(len(grid.tokens) for grid in grids)


def _pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which conversations share a sequence of `room` positions: the longest first, each where it fits first."""
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((row for row, left in enumerate(free) if left >= lengths[index]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            free.append(room)
        rows[row].append(index)
        free[row] -= lengths[index]
    return rows


def _batch(grids, heard: Heard, rows: list[list[int]], length: int, chunk_frames: int) -> Batch:
    """The conversations of each row one after the other."""
    streams = grids[0].tokens.shape[1]
    packed, sounds = [], []
    for row in rows:
        clips, start, entries = [], 0, []
        for index in row:
            clips += [Clip(start + clip.start, clip.length) for clip in grids[index].clips]
            start += len(grids[index].tokens)
            entries += [] if heard[index] is None else [heard[index]]
        nothing = np.zeros((0, streams))
        tokens = np.concatenate([nothing.astype(np.int32), *[grids[index].tokens for index in row]])
        weights = np.concatenate([nothing.astype(np.float32), *[grids[index].loss_weights for index in row]])
        packed.append(TokenGrid(tokens, weights, tuple(clips)))
        sounds.append(_joined(entries))
    batch = stack_prompts(packed, sounds, length, chunk_frames)
    segment_ids, positions = np.zeros_like(batch.segment_ids), np.zeros_like(batch.segment_ids)
    for place_, row in enumerate(rows):
        start = 0
        for number, index in enumerate(row, start=1):
            end = start + len(grids[index].tokens)
            segment_ids[place_, start:end] = number
            positions[place_, start:end] = np.arange(end - start)
            start = end
        batch.loss_weights[place_, :start] = packed[place_].loss_weights
    return batch._replace(segment_ids=segment_ids, positions=positions)


def _joined(entries: list) -> Float[np.ndarray, "_ A"] | list[MelWindow] | None:
    """Concatenates what several conversations hear."""
    if not entries:
        return None
    if isinstance(entries[0], np.ndarray):
        return np.concatenate(entries)
    return [window for entry in entries for window in entry]
