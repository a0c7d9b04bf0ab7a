"""Prompts as one right-padded batch of few possible shapes, with or without their unconditional twins."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ualm_jax.audio.mel import MEL_BINS, MelWindow, feature_rows, stack_windows
from ualm_jax.tokens.types import Batch, TokenGrid

Heard = Sequence[Float[np.ndarray, "_ A"] | Sequence[MelWindow] | None]
"""For each prompt what its clips sound like, one clip after the other: mel windows for the audio encoder, or features
that one has made already; None for a prompt without clips. All prompts of a call that have clips give the same kind."""


def bucket(length: int) -> int:
    """`length` rounded up to 64, 96, 128, 192, 256, ...: few shapes, so few compiled programs."""
    size = 64
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def batch_prompts(
    prompts: Sequence[TokenGrid], heard: Heard, *, guided: bool, keep_role: bool, chunk_frames: int = 1
) -> Batch:
    """Arrays [B, P, ...] of the prompts, P a bucket.

    guided: every prompt is followed by its unconditional twin (2 B rows): as long, all ids 0, no clips; with
        `keep_role` its last row, the role token, stays, as in training (`tokens.layout.drop_condition`).
    chunk_frames: mel windows are padded to a multiple of it (`MelFrontEnd.chunk_frames`).
    Raises ValueError where what is heard does not fit the clips.
    """
    twins = 2 if guided else 1
    rows, streams = twins * len(prompts), prompts[0].tokens.shape[1]
    length = bucket(max(len(prompt.tokens) for prompt in prompts))
    tokens = np.zeros((rows, length, streams), np.int32)
    segment_ids = np.zeros((rows, length), np.int32)
    for row, prompt in enumerate(prompts):
        cond, twin = twins * row, twins * row + 1
        used = len(prompt.tokens)
        tokens[cond, :used] = prompt.tokens
        segment_ids[cond : cond + twins, :used] = 1
        if guided and keep_role:
            tokens[twin, used - 1] = prompt.tokens[-1]
    batch = Batch(
        tokens=tokens,
        loss_weights=np.zeros(tokens.shape, np.float32),
        segment_ids=segment_ids,
        positions=np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)),
    )
    return _with_clips(batch, prompts, heard, twins, chunk_frames)


def _with_clips(batch: Batch, prompts: Sequence[TokenGrid], heard: Heard, twins: int, chunk_frames: int) -> Batch:
    """`batch` with what its conditional rows hear, and which of it stands where."""
    if len(heard) != len(prompts):
        raise ValueError(f"what is heard must have one entry for each of {len(prompts)} prompts, got {len(heard)}")
    first = next((entry for entry in heard if entry is not None), None)
    as_mels = not isinstance(first, np.ndarray)
    if first is None:
        extra, sources = {}, [np.zeros(0, np.int32)] * len(prompts)
    elif as_mels:
        windows = max(len(entry or ()) for entry in heard)
        chunks = max(-(-window.mel.shape[1] // chunk_frames) for entry in heard for window in entry or ())
        frames = bucket(64 * chunks) // 64 * chunk_frames
        mels = np.zeros((len(batch.tokens), windows, MEL_BINS, frames), np.float32)
        mel_frames = np.zeros((len(batch.tokens), windows), np.int32)
        sources = []
        for row, entry in enumerate(heard):
            if entry:
                mels[twins * row, : len(entry)], mel_frames[twins * row, : len(entry)] = stack_windows(entry, frames)
            sources.append(
                feature_rows([window.frames for window in entry], frames) if entry else np.zeros(0, np.int32)
            )
        extra = {"mels": mels, "mel_frames": mel_frames}
    else:
        features = np.zeros((len(batch.tokens), bucket(max(len(e) for e in heard if e is not None)), first.shape[1]))
        for row, entry in enumerate(heard):
            if entry is not None:
                features[twins * row, : len(entry)] = entry
        sources = [np.arange(0 if entry is None else len(entry)) for entry in heard]
        extra = {"features": features.astype(np.float32)}
    index = np.full(batch.segment_ids.shape, -1, np.int32)
    for row, (prompt, source) in enumerate(zip(prompts, sources, strict=True)):
        positions = [np.arange(clip.start, clip.start + clip.length) for clip in prompt.clips]
        places = np.concatenate([*positions, np.zeros(0, int)])
        if len(places) != len(source):
            raise ValueError(f"prompt {row} has clips of {len(places)} frames, but {len(source)} are heard")
        index[twins * row, places] = source
    return batch if first is None else batch._replace(feature_index=index, **extra)
