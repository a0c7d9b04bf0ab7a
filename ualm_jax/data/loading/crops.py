"""Batches of crops of waveforms: batch i is a function of the seed, i and the clips alone."""

import collections
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from ualm_jax.data.loading.clips import Clips
from ualm_jax.errors import UserError

log = logging.getLogger(__name__)

_TRIES = 8  # crops drawn for a row before the clips are given up


class Crops:
    """An endless iterator over (crops [B, N, C] float32, the clips they come from [B]).

    A crop is centred at a moment drawn evenly from all sound; beyond a clip's ends there is silence. Gains are drawn
    evenly in dB, signs by a coin. A clip that can not be read is left out, counted in `unreadable`, and another crop
    drawn. rows: of the batch, those that this process makes. threads: batches that are made at a time, ahead.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        samples: int,
        batch_size: int,
        seed: int,
        gain_db: tuple[float, float] = (0.0, 0.0),
        flip: bool = False,
        rows: slice = slice(None),
        threads: int = 2,
    ):
        self._clips, self._samples, self._batch_size, self._seed = clips, samples, batch_size, seed
        self._gain_db, self._flip = gain_db, flip
        self._rows = range(batch_size)[rows]
        self._ends = np.cumsum(clips.lengths)
        self.unreadable: set[int] = set()
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "crops")
        self._ahead: collections.deque = collections.deque()
        self._next = self._begun = 0

    def __iter__(self) -> "Crops":
        return self

    def __next__(self) -> tuple[Any, Int64[np.ndarray, " B"]]:
        while len(self._ahead) <= self._threads:
            self._ahead.append(self._pool.submit(self.batch, self._begun))
            self._begun += 1
        self._next += 1
        return self._ahead.popleft().result()

    def batch(self, number: int) -> tuple[Float32[np.ndarray, "B N C"], Int64[np.ndarray, " B"]]:
        """Batch `number`, whatever has been drawn before."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, number])))
        # Drawn for all rows, so that a row does not depend on which process makes it.
        moments = rng.integers(self._ends[-1], size=(_TRIES, self._batch_size))
        gains = 10 ** (rng.uniform(*self._gain_db, self._batch_size) / 20)
        if self._flip:
            gains *= rng.choice([-1.0, 1.0], self._batch_size)
        crops = np.zeros((len(self._rows), self._samples, self._clips.channels), np.float32)
        origins = np.zeros(len(self._rows), np.int64)
        for place, row in enumerate(self._rows):
            origins[place] = self._fill(crops[place], moments[:, row])
            crops[place] *= np.float32(gains[row])
        return crops, origins

    def _fill(self, crop: Float32[np.ndarray, "N C"], moments: Int64[np.ndarray, " tries"]) -> int:
        for moment in moments:
            index = int(np.searchsorted(self._ends, moment, side="right"))
            length = int(self._clips.lengths[index])
            start = int(moment - self._ends[index]) + length - self._samples // 2
            first, stop = max(start, 0), min(start + self._samples, length)
            try:
                crop[first - start : stop - start] = self._clips.read(index, first, stop)
                return index
            except UserError as error:
                if index not in self.unreadable:
                    log.warning("%s; it is left out", error)
                self.unreadable.add(index)
                reason = error
        raise UserError(f"{_TRIES} crops in a row could not be read, the last one because: {reason}")

    def get_state(self) -> dict[str, Any]:
        return {"batch": self._next, "seed": self._seed}

    def set_state(self, state: dict[str, Any]) -> None:
        self._ahead.clear()
        self._next = self._begun = state["batch"]

    def progress(self) -> dict[str, float]:
        return {"data/unreadable_clips": float(len(self.unreadable))}

    def record_names(self, origins: Int64[np.ndarray, " B"]) -> list[str]:
        return [self._clips.name(int(index)) for index in origins]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class FinishedCrops(Crops):
    """`Crops` whose batches are what `finish(number, crops)` makes of them, in the same threads."""

    def __init__(self, finish: Callable[[int, Float32[np.ndarray, "B N C"]], Any], clips: Clips, **settings: Any):
        self._finish = finish
        super().__init__(clips, **settings)

    def batch(self, number: int) -> tuple[Any, Int64[np.ndarray, " B"]]:
        crops, origins = super().batch(number)
        return self._finish(number, crops), origins
