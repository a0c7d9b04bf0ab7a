"""How long every conversation of a dataset is, known without reading it; memory-mapped, so it takes no memory."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from ualm_jax.audio.mel import SAMPLE_RATE, MelFrontEnd
from ualm_jax.data.dataset.audio_input import Size, clip_size
from ualm_jax.errors import UserError

LENGTHS, CLIPS, CLIP_ENDS = "lengths.npy", "clips.npy", "clip_ends.npy"
_LENGTHS_OF_FORMAT_2 = "rows.npy"
_BLOCK = 1 << 20  # records looked at together


class Lengths:
    """Sizes of a dataset's conversations by index, in positions and mel windows as `front_end` makes them.

    lengths.npy int32 [R]: positions without encoder frames. clips.npy int32 [C]: 16 kHz samples of every clip of
    audio input. clip_ends.npy int64 [R]: number of clips up to and including each record's; empty without clips.
    """

    def __init__(self, directory: Path, front_end: MelFrontEnd | None):
        # Views without np.memmap's class: indexing them is five times as fast.
        self._lengths, self._clips, self._ends = (
            np.asarray(np.load(path, mmap_mode="r")) for path in length_files(directory)
        )
        self._directory, self._front_end = directory, front_end
        if len(self._clips) and front_end is None:
            raise UserError(
                f"{directory}: its conversations hold audio to listen to; set data.audio_slots to the mel windows "
                "per row that the model's encoder shall hear"
            )

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: int) -> Size:
        length, windows = self._lengths.item(index), 0
        if len(self._clips):
            first = self._ends.item(index - 1) if index else 0
            for clip in range(first, self._ends.item(index)):
                size = clip_size(self._front_end, self._clips.item(clip))
                length, windows = length + size.length, windows + size.windows
        return Size(length, windows)

    def check(self, seq_len: int, audio_slots: int) -> None:
        """Raise UserError, naming the record, if one does not fit a row or one of its clips is too long to hear."""
        for start in range(0, len(self), _BLOCK):
            lengths, windows = self._block(start)
            for sizes, limit, what, field in (
                (lengths, seq_len, "positions", "data.seq_len"),
                (windows, audio_slots, "mel windows", "data.audio_slots"),
            ):
                worst = int(np.argmax(sizes))
                if sizes[worst] > limit:
                    raise UserError(
                        f"{self._directory}: conversation {start + worst} has {sizes[worst]} {what}, {field} is "
                        f"{limit}; raise {field}, or prepare the dataset again and leave out what is longer"
                    )
        if len(self._clips):
            front_end, longest = self._front_end, int(self._clips.max())
            limit = front_end.max_seconds
            if longest > limit * SAMPLE_RATE:
                raise UserError(
                    f"{self._directory}: a clip lasts {longest / SAMPLE_RATE:.2f} s, the audio encoder hears at most "
                    f"{limit:g} s; raise data.window_frames, or prepare the dataset again from shorter clips"
                )

    def positions(self) -> Int[np.ndarray, "R"]:
        """Of each conversation; in memory, 8 bytes each."""
        return np.concatenate([self._block(start).length for start in range(0, len(self), _BLOCK)])

    def total(self) -> int:
        """Positions of all conversations."""
        return sum(int(self._block(start).length.sum()) for start in range(0, len(self), _BLOCK))

    def _block(self, start: int) -> Size:
        lengths = self._lengths[start : start + _BLOCK].astype(np.int64)
        windows = np.zeros_like(lengths)
        if len(self._clips):
            ends = self._ends[start : start + _BLOCK]
            first = int(self._ends[start - 1]) if start else 0
            sizes = clip_size(self._front_end, self._clips[first : ends[-1]].astype(np.int64))
            owner = np.repeat(np.arange(len(lengths)), np.diff(ends, prepend=first))
            np.add.at(lengths, owner, sizes.length)
            np.add.at(windows, owner, sizes.windows)
        return Size(lengths, windows)


def length_files(directory: Path) -> tuple[Path, Path, Path]:
    """Where `Lengths` are stored, in the order of its documentation."""
    old = directory / _LENGTHS_OF_FORMAT_2
    return old if old.is_file() else directory / LENGTHS, directory / CLIPS, directory / CLIP_ENDS
