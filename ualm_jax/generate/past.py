"""What an engine has read and made of one conversation, so that only what is new is read when it goes on."""

import hashlib

import numpy as np
from jaxtyping import Int

from ualm_jax.audio.mel import frames_out
from ualm_jax.generate.seats import Place
from ualm_jax.tokens.types import Clip, TokenGrid


class Past:
    """The positions that a sequence of an engine's cache holds.

    tokens: their ids. marks: what is heard at each, as a number; 0 for tokens. place: of the sequence; None once the
    engine has needed it for something else, and then all is read again.
    """

    def __init__(self, tokens: Int[np.ndarray, "n S"], marks: Int[np.ndarray, " n"], place: Place | None = None):
        self.tokens, self.marks, self.place = tokens, marks, place

    def shared(self, prompt: TokenGrid, marks: Int[np.ndarray, " T"]) -> int:
        """How many positions of `prompt` the sequence holds; never all, for the last one must be read."""
        length = min(len(self.tokens), len(prompt.tokens) - 1)
        same = np.all(self.tokens[:length] == prompt.tokens[:length], axis=1) & (self.marks[:length] == marks[:length])
        length = length if same.all() else int(np.argmin(same))
        # A clip is heard as a whole.
        return next((clip.start for clip in prompt.clips if clip.start < length < clip.start + clip.length), length)


def marks_of(prompt: TokenGrid, heard) -> Int[np.ndarray, " T"]:
    """Numbers for what is heard at each position."""
    marks = np.zeros(len(prompt.tokens), np.int64)
    for clip, part in zip(prompt.clips, split_heard(prompt.clips, heard), strict=True):
        arrays = [part] if isinstance(part, np.ndarray) else [window.mel for window in part]
        digest = hashlib.blake2b(b"".join(array.tobytes() for array in arrays), digest_size=8).digest()
        marks[clip.start : clip.start + clip.length] = np.frombuffer(digest, np.int64)
    return marks


def rest_of(prompt: TokenGrid, heard, start: int):
    """The prompt from position `start` on, and what is heard from there."""
    parts = split_heard(prompt.clips, heard)
    later = [(clip, part) for clip, part in zip(prompt.clips, parts, strict=True) if clip.start >= start]
    grid = TokenGrid(
        prompt.tokens[start:],
        prompt.loss_weights[start:],
        tuple(Clip(clip.start - start, clip.length) for clip, _ in later),
    )
    if not later:
        return grid, None
    parts = [part for _, part in later]
    return grid, np.concatenate(parts) if isinstance(heard, np.ndarray) else [w for part in parts for w in part]


def split_heard(clips: tuple[Clip, ...], heard) -> list:
    """Splits the features of all clips into those of each."""
    parts, begin = [], 0
    for clip in clips:
        if isinstance(heard, np.ndarray):
            end = begin + clip.length
        else:
            end, frames = begin, 0
            while frames < clip.length:
                frames += frames_out(heard[end].frames)
                end += 1
        parts.append(heard[begin:end])
        begin = end
    return parts
