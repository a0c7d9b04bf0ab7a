"""The delay pattern: codebook q is shifted q steps, so that step t predicts code q of frame t - q."""

import numpy as np
from jaxtyping import Int

from ualm_jax.tokens.vocabulary import Vocabulary


def delay(codes: Int[np.ndarray, "T Q"], vocabulary: Vocabulary) -> Int[np.ndarray, "T2 Q"]:
    """Codes [T, Q] as unified ids [T + Q - 1, Q]; the corners hold each stream's pad.

    Raises ValueError for codes outside the codebooks or no frames at all.
    """
    num_frames, num_codebooks = codes.shape
    if num_codebooks != vocabulary.num_codebooks or num_frames == 0:
        raise ValueError(f"codes must be [T >= 1, {vocabulary.num_codebooks}], got {codes.shape}")
    if codes.min() < 0 or codes.max() >= vocabulary.codebook_size:
        raise ValueError(f"codes must lie in [0, {vocabulary.codebook_size}), got {codes.min()} to {codes.max()}")
    grid = np.empty((num_frames + num_codebooks - 1, num_codebooks), np.int32)
    for q in range(num_codebooks):
        grid[:, q] = vocabulary.audio_pad(q)
        grid[q : q + num_frames, q] = vocabulary.audio_pad(q) + 1 + codes[:, q]
    return grid


def undelay(grid: Int[np.ndarray, "T2 Q"], vocabulary: Vocabulary) -> Int[np.ndarray, "T Q"]:
    """Exact inverse of `delay`. Raises ValueError where the grid does not have its structure."""
    num_codebooks = vocabulary.num_codebooks
    num_frames = grid.shape[0] - num_codebooks + 1
    if num_frames < 1:
        raise ValueError(f"a delayed grid has at least {num_codebooks} positions, got {grid.shape[0]}")
    pads = np.array([vocabulary.audio_pad(q) for q in range(num_codebooks)])
    codes = np.stack([grid[q : q + num_frames, q] for q in range(num_codebooks)], axis=1) - pads - 1
    if codes.min() < 0 or codes.max() >= vocabulary.codebook_size:
        raise ValueError("the grid holds a pad, or an id of another stream, where a code must stand")
    if not np.array_equal(delay(codes, vocabulary), grid):
        raise ValueError("the grid holds a code where the delay pattern leaves a pad")
    return codes.astype(np.int32)
