"""How long every conversation of a dataset is, known without reading it; memory-mapped, so it takes no memory."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from ualm_jax.audio.mel import SAMPLE_RATE, MelFrontEnd
from ualm_jax.data.dataset.audio_input import Size, clip_size
from ualm_jax.errors import UserError

LENGTHS, CLIPS, CLIP_ENDS = "lengths.npy", "clips.npy", "clip_ends.npy"
_LENGTHS_OF_FORMAT_2 = "rows.npy"
_BLOCK = 1 << 20  # records looked at together
_AGAIN = "the dataset is damaged, copy or prepare it again"


class Lengths:
    """Sizes of a dataset's conversations by index, in positions and mel windows as `front_end` makes them.

    lengths.npy int32 [R]: positions without encoder frames. clips.npy int32 [C]: 16 kHz samples of every clip of
    audio input. clip_ends.npy int64 [R]: number of clips up to and including each record's; empty without clips.
    """

    def __init__(self, directory: Path, front_end: MelFrontEnd | None):
        """Raises UserError for a damaged file, and for audio input without a front end."""
        files = length_files(directory)
        self._lengths, self._clips, self._ends = map(_open, files)
        if len(self._ends) != (len(self._lengths) if len(self._clips) else 0):
            raise UserError(f"{files[2]}: does not belong to {files[0].name} and {files[1].name}; {_AGAIN}")
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

    def check_sums(self, records: int, positions: int) -> None:
        """Raise UserError unless records, and positions without encoder frames, are as many as dataset.json says."""
        found = sum(int(self._lengths[i : i + _BLOCK].sum(dtype=np.int64)) for i in range(0, len(self), _BLOCK))
        names = ", ".join(path.name for path in length_files(self._directory))
        if (len(self), found) != (records, positions):
            raise UserError(
                f"{self._directory}: {names} tell of {len(self)} records and {found} positions, dataset.json of "
                f"{records} and {positions}; {_AGAIN}"
            )
        counts = np.diff(self._ends, prepend=0)
        if len(self._clips) and (counts.min() < 0 or self._ends[-1] != len(self._clips) or self._clips.min() < 1):
            raise UserError(f"{self._directory}: {names} contradict each other; {_AGAIN}")

    def too_long(self, seq_len: int, audio_slots: int) -> Bool[np.ndarray, "R"]:
        """Which conversations do not fit a row, or have a clip that is too long for the audio encoder."""
        found = np.zeros(len(self), bool)
        for start in range(0, len(self), _BLOCK):
            lengths, windows = self._block(start)
            found[start : start + _BLOCK] = (lengths > seq_len) | (windows > audio_slots)
        if len(self._clips):
            clips = np.flatnonzero(self._clips > self._front_end.max_seconds * SAMPLE_RATE)
            found[np.searchsorted(self._ends, clips, side="right")] = True
        return found

    def explain(self, index: int, seq_len: int, audio_slots: int) -> str:
        """Why a conversation is `too_long`, and what to raise."""
        size = self[index]
        if size.length > seq_len:
            return f"has {size.length} positions, data.seq_len is {seq_len}; raise data.seq_len"
        if size.windows > audio_slots:
            return f"has {size.windows} mel windows, data.audio_slots is {audio_slots}; raise data.audio_slots"
        first = self._ends.item(index - 1) if index else 0
        longest = int(self._clips[first : self._ends.item(index)].max())
        return (
            f"has a clip that lasts {longest / SAMPLE_RATE:.2f} s, the audio encoder hears at most "
            f"{self._front_end.max_seconds:g} s; raise max_seconds in its settings.json"
        )

    def positions(self) -> Int[np.ndarray, "R"]:
        """The positions of each conversation; in memory, 8 bytes each."""
        return np.concatenate([self._block(start).length for start in range(0, len(self), _BLOCK)])

    def total(self, skip: Bool[np.ndarray, "R"] | None = None) -> int:
        """Positions of all conversations but those in `skip`."""
        total = 0
        for start in range(0, len(self), _BLOCK):
            lengths = self._block(start).length
            total += int((lengths if skip is None else lengths[~skip[start : start + _BLOCK]]).sum())
        return total

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


def _open(path: Path) -> Int[np.ndarray, "_"]:
    try:
        # A view without np.memmap's class: indexing it is five times as fast.
        values = np.asarray(np.load(path, mmap_mode="r"))
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: is no NumPy file, or cut ({error}); {_AGAIN}") from error
    if values.ndim != 1 or values.dtype.kind != "i":
        raise UserError(f"{path}: expected a list of integers, found {values.dtype} {values.shape}; {_AGAIN}")
    return values
