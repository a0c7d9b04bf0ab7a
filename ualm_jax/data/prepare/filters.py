"""What makes a conversation worth learning from: duration, loudness, length, and not being a duplicate."""

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float32, Int

from ualm_jax.errors import UserError

FILTERS = ("duration", "silence", "clipping", "length", "duplicate-caption", "duplicate-audio")
_FULL_SCALE = 1.0 - 2.0**-15  # the loudest positive sample of 16 bits


@dataclasses.dataclass(frozen=True)
class Filters:
    """Every filter counts the conversations it finds; the filters named in `drop` also leave them out.

    min_seconds, max_seconds (None: no limit): duration of each sound.
    silence_db: a sound whose RMS level is below this many dB of full scale is silent.
    max_clipped: a sound is clipped if at least this share of its samples is at full scale.
    max_length: positions of a conversation's token grid, 25 for each second of audio input. None: no limit.
    duplicate-caption: the texts before the first generated sound equal those of an earlier conversation, ignoring
        case, punctuation and spaces. duplicate-audio: the first codebook's codes of all generated sounds equal those
        of an earlier conversation, so the sounds are the same up to changes that the coarsest codes do not show.

    Filters run in the order of FILTERS, and each sees only what the filters before it did not leave out.
    """

    min_seconds: float = 0.0
    max_seconds: float | None = None
    silence_db: float = -60.0
    max_clipped: float = 0.01
    max_length: int | None = None
    drop: tuple[str, ...] = ("duration", "length")

    def __post_init__(self):
        for name in self.drop:
            if name not in FILTERS:
                raise UserError(f"there is no filter {name!r}; expected {', '.join(FILTERS)}")

    def check_sound(self, wav: Float32[np.ndarray, "N"], sample_rate: int) -> dict[str, str]:
        """The filters that find this sound, each with the reason."""
        found = {}
        seconds = len(wav) / sample_rate
        if seconds < self.min_seconds or (self.max_seconds is not None and seconds > self.max_seconds):
            upper = "no limit" if self.max_seconds is None else f"{self.max_seconds:g} s"
            found["duration"] = f"lasts {seconds:.2f} s, expected {self.min_seconds:g} s to {upper}"
        level = 20 * np.log10(max(float(np.sqrt(np.mean(wav.astype(np.float64) ** 2))), 1e-10))
        if level < self.silence_db:
            found["silence"] = f"its level is {level:.1f} dB, silence begins at {self.silence_db:g} dB"
        clipped = float(np.mean(np.abs(wav) >= _FULL_SCALE))
        if clipped >= self.max_clipped:
            found["clipping"] = f"{clipped:.1%} of its samples are at full scale, allowed are {self.max_clipped:.1%}"
        return found

    def check_length(self, length: int) -> dict[str, str]:
        """The same for a conversation's length in positions."""
        if self.max_length is None or length <= self.max_length:
            return {}
        return {"length": f"the conversation takes {length} positions, allowed are {self.max_length}"}


def caption_hash(text: str) -> int:
    """64 bits, equal for texts that differ only in case, punctuation and spaces, in any script."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
    return _hash(" ".join(words).encode())


def audio_hash(codes: list[Int[np.ndarray, "_ Q"]]) -> int:
    """64 bits of the first codebook's codes."""
    return _hash(b"|".join(sound[:, 0].astype("<i4").tobytes() for sound in codes))


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def duplicates(hashes: Iterable[int | None], count: int) -> Bool[np.ndarray, "R"]:
    """Which of `count` conversations have the hash of an earlier one. None is equal to nothing.

    Takes some 25 bytes a conversation while it works.
    """
    values, known = np.zeros(count, np.uint64), np.zeros(count, bool)
    for position, value in enumerate(hashes):
        if value is not None:
            values[position], known[position] = value, True
    places = np.flatnonzero(known)
    order = places[np.argsort(values[places], kind="stable")]
    found = np.zeros(count, bool)
    found[order[1:]] = values[order[1:]] == values[order[:-1]]
    return found
