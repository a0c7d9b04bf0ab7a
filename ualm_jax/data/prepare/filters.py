"""What makes a conversation worth learning from: duration, loudness, length, and not being a duplicate."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float32, Int

from ualm_jax.errors import UserError
from ualm_jax.fields import Count, NotNegative, Positive, Share, check_fields

FILTERS = ("duration", "silence", "clipping", "length", "duplicate-caption", "duplicate-audio")
_FULL_SCALE = 1.0 - 2.0**-15  # the loudest positive sample of 16 bits


@dataclasses.dataclass(frozen=True)
class SoundMeasures:
    """seconds: duration. level: RMS in dB of full scale. clipped: share of samples at full scale."""

    seconds: float
    level: float
    clipped: float

    @classmethod
    def of(cls, wav: Float32[np.ndarray, "N"], sample_rate: int) -> "SoundMeasures":
        rms = float(np.sqrt(np.mean(wav.astype(np.float64) ** 2)))
        level = 20 * math.log10(max(rms, 1e-10))
        return cls(len(wav) / sample_rate, level, float(np.mean(np.abs(wav) >= _FULL_SCALE)))


@dataclasses.dataclass(frozen=True)
class Measures:
    """What filters look at of a conversation.

    length: positions of its token grid, 25 for each second of audio input. None: not counted, since a filter of its
    sounds left it out before.
    """

    sounds: tuple[SoundMeasures, ...]
    length: int | None = None


@dataclasses.dataclass(frozen=True)
class Filters:
    """Every filter counts the conversations it finds; the filters named in `drop` also leave them out.

    min_seconds, max_seconds: duration of each sound. None: no limit.
    silence_db: a sound whose RMS level is below this many dB of full scale is silent.
    max_clipped: a sound is clipped if at least this share of its samples is at full scale.
    max_length: positions of a conversation's token grid, 25 for each second of audio input. None: no limit.
    duplicate-caption: the texts before the first generated sound equal those of an earlier conversation, ignoring
        case, punctuation and spaces. duplicate-audio: the first codebook's codes of all generated sounds equal those
        of an earlier conversation, so the sounds are the same up to changes that the coarsest codes do not show.

    Filters run in the order of FILTERS, and each sees only what the filters before it did not leave out.
    """

    min_seconds: NotNegative = 0.0
    max_seconds: Positive | None = None
    silence_db: float = -60.0
    max_clipped: Share = 0.01
    max_length: Count | None = None
    drop: tuple[str, ...] = ("duration", "length")

    def __post_init__(self):
        check_fields(self, "filters")
        if self.max_seconds is not None and self.max_seconds < self.min_seconds:
            raise UserError(f"filters.max_seconds must be at least {self.min_seconds:g}, got {self.max_seconds:g}.")
        for name in self.drop:
            if name not in FILTERS:
                raise UserError(f"there is no filter {name!r}; expected {', '.join(FILTERS)}")

    def find(self, measures: Measures) -> dict[str, str]:
        """The filters that find this conversation, each with the reason. Duplicates are looked for elsewhere."""
        found = {}
        for sound in measures.sounds:
            if sound.seconds < self.min_seconds or sound.seconds > (self.max_seconds or math.inf):
                upper = "no limit" if self.max_seconds is None else f"{self.max_seconds:g} s"
                found["duration"] = f"lasts {sound.seconds:.2f} s, expected {self.min_seconds:g} s to {upper}"
            if sound.level < self.silence_db:
                found["silence"] = f"its level is {sound.level:.1f} dB, silence begins at {self.silence_db:g} dB"
            if sound.clipped >= self.max_clipped:
                share = f"{sound.clipped:.1%} of its samples are at full scale"
                found["clipping"] = f"{share}, allowed are {self.max_clipped:.1%}"
        length = measures.length
        if length is not None and self.max_length is not None and length > self.max_length:
            found["length"] = f"the conversation takes {length} positions, allowed are {self.max_length}"
        return found

    def dropped_by(self, measures: Measures) -> str | None:
        """The first filter that leaves this conversation out, None if none does."""
        return next((name for name in self.find(measures) if name in self.drop), None)


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
