"""Prompts as one right-padded batch of few possible shapes, with or without their unconditional twins."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ualm_jax.audio.mel import MEL_BINS, MelWindow, feature_indices, stack_windows
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.types import Batch, TokenGrid

Heard = Sequence[Float[np.ndarray, "_ A"] | Sequence[MelWindow] | None]
"""For each prompt what its clips sound like, one clip after the other: mel windows for the audio encoder, or features
that one has made already; None for a prompt without clips. All prompts of a batch that have clips give one kind."""


def bucket(length: int) -> int:
    """`length` rounded up to 64, 96, 128, 192, 256, ...: few shapes, so few compiled programs."""
    size = 64
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def unconditional(prompt: TokenGrid, keep_role: bool) -> TokenGrid:
    """What guidance sets against a prompt: as long, all ids 0, no clips; with `keep_role` its last position, the role
    token, stays, as in training (`tokens.layout.drop_condition`)."""
    tokens = np.zeros_like(prompt.tokens)
    if keep_role:
        tokens[-1] = prompt.tokens[-1]
    return TokenGrid(tokens, np.zeros_like(prompt.loss_weights))


def batch_prompts(
    prompts: Sequence[TokenGrid], heard: Heard, *, guided: bool, keep_role: bool, chunk_frames: int = 1
) -> Batch:
    """Arrays [B, P, ...] of the prompts, P a bucket; guided: each is followed by its unconditional twin (2 B rows).

    chunk_frames: mel windows are padded to a multiple of it (`MelFrontEnd.chunk_frames`).
    Raises ValueError where what is heard does not fit the clips.
    """
    check_heard(prompts, heard)
    if guided:
        pairs = [(prompt, unconditional(prompt, keep_role)) for prompt in prompts]
        prompts, heard = [grid for pair in pairs for grid in pair], [h for entry in heard for h in (entry, None)]
    return stack_prompts(prompts, heard, bucket(max(len(prompt.tokens) for prompt in prompts)), chunk_frames)


def check_heard(prompts: Sequence[TokenGrid], heard: Heard) -> None:
    """Raises ValueError where what is heard does not fit the clips of the prompts."""
    if len(heard) != len(prompts):
        raise ValueError(f"what is heard must have one entry for each of {len(prompts)} prompts, got {len(heard)}")
    for index, (prompt, entry) in enumerate(zip(prompts, heard, strict=True)):
        wanted = sum(clip.length for clip in prompt.clips)
        if entry is None or isinstance(entry, np.ndarray):
            found = 0 if entry is None else len(entry)
        else:
            found = len(_sources(entry, max((window.mel.shape[1] for window in entry), default=0)))
        if wanted != found:
            raise ValueError(f"prompt {index} has clips of {wanted} frames, but {found} are heard")


def stack_prompts(prompts: Sequence[TokenGrid], heard: Heard, length: int, chunk_frames: int) -> Batch:
    """Arrays [B, P = `length`, ...]; what is heard fits (`check_heard`)."""
    rows, streams = len(prompts), prompts[0].tokens.shape[1]
    tokens = np.zeros((rows, length, streams), np.int32)
    segment_ids = np.zeros((rows, length), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt.tokens)] = prompt.tokens
        segment_ids[row, : len(prompt.tokens)] = 1
    batch = Batch(
        tokens=tokens,
        loss_weights=np.zeros(tokens.shape, np.float32),
        segment_ids=segment_ids,
        positions=np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)),
    )
    first = next((entry for entry in heard if entry is not None), None)
    if first is None:
        return batch
    if isinstance(first, np.ndarray):
        sources, extra = _features(heard, first.shape[1])
    else:
        sources, extra = _mels(heard, chunk_frames)
    index = np.full(segment_ids.shape, -1, np.int32)
    for row, (prompt, source) in enumerate(zip(prompts, sources, strict=True)):
        positions = [np.arange(clip.start, clip.start + clip.length) for clip in prompt.clips]
        index[row, np.concatenate([*positions, np.zeros(0, int)])] = source
    return batch._replace(feature_index=index, **extra)


def shape_of(entry, chunk_frames: int) -> tuple:
    """The shape that one prompt's clips give to a batch; prompts of different shapes are better not stacked."""
    if entry is None or isinstance(entry, np.ndarray):
        return () if entry is None else (bucket(len(entry)),)
    return len(entry), _mel_frames([entry], chunk_frames)


def place(arrays: Any) -> Any:
    """Host arrays [B, ...] on the mesh, split by their first axis."""
    mesh = jax.sharding.get_mesh()

    def sharding(array) -> jax.NamedSharding:
        return jax.NamedSharding(mesh, spec("batch", *[None] * (array.ndim - 1)))

    return jax.device_put(arrays, jax.tree.map(sharding, arrays))  # all in one call


def _features(heard: Heard, width: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    features = np.zeros((len(heard), bucket(max(len(e) for e in heard if e is not None)), width), np.float32)
    for row, entry in enumerate(heard):
        if entry is not None:
            features[row, : len(entry)] = entry
    return [np.arange(0 if entry is None else len(entry)) for entry in heard], {"features": features}


def _mels(heard: Heard, chunk_frames: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    windows = max(len(entry or ()) for entry in heard)
    frames = _mel_frames(heard, chunk_frames)
    mels = np.zeros((len(heard), windows, MEL_BINS, frames), np.float32)
    mel_frames = np.zeros((len(heard), windows), np.int32)
    for row, entry in enumerate(heard):
        if entry:
            mels[row, : len(entry)], mel_frames[row, : len(entry)] = stack_windows(entry, frames)
    return [_sources(entry or (), frames) for entry in heard], {"mels": mels, "mel_frames": mel_frames}


def _mel_frames(heard: Heard, chunk_frames: int) -> int:
    """Columns of the windows of a batch."""
    chunks = max(-(-window.mel.shape[1] // chunk_frames) for entry in heard for window in entry or ())
    return bucket(64 * chunks) // 64 * chunk_frames


def _sources(entry: Sequence[MelWindow], frames: int) -> np.ndarray:
    """Which audio frames of a row are real, if its windows are `frames` mel frames long."""
    return feature_indices([window.frames for window in entry], frames) if entry else np.zeros(0, np.int32)
