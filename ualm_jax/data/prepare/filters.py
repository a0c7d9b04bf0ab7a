"""What a conversation must be to be worth learning from: duration, loudness, length, and being the only one."""

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float32, Int

from ualm_jax.errors import UserError

GATES = ("duration", "silence", "clipping", "length", "duplicate-caption", "duplicate-audio")
_FULL_SCALE = 1.0 - 2.0**-15  # the loudest positive sample of 16 bits


@dataclasses.dataclass(frozen=True)
class Gates:
    """Every gate counts what it finds; those in `drop` also leave it out.

    min_seconds, max_seconds (None: no limit): of each sound.
    silence_db: a sound whose RMS lies below, in dB of full scale, is silent.
    max_clipped: share of samples at full scale from which on a sound is clipped.
    max_rows: of a conversation as a token grid, 25 rows for each second that is heard. None: no limit.
    duplicate-caption: what is said before sound is made equals an earlier conversation's, but for case,
        punctuation and spaces. duplicate-audio: the first codebook's codes of all sounds made equal an earlier
        conversation's: the same sound, also after a change that the coarsest code does not show. A gate looks at
        what the gates before it have let through, in the order of GATES.
    """

    min_seconds: float = 0.0
    max_seconds: float | None = None
    silence_db: float = -60.0
    max_clipped: float = 0.01
    max_rows: int | None = None
    drop: tuple[str, ...] = ("duration", "length")

    def __post_init__(self):
        for gate in self.drop:
            if gate not in GATES:
                raise UserError(f"there is no gate {gate!r}; expected {', '.join(GATES)}")

    def judge_sound(self, wav: Float32[np.ndarray, "N"], sample_rate: int) -> dict[str, str]:
        """The gates a sound does not pass, each with the reason."""
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

    def judge_rows(self, rows: int) -> dict[str, str]:
        if self.max_rows is None or rows <= self.max_rows:
            return {}
        return {"length": f"the conversation has {rows} rows, allowed are {self.max_rows}"}


DEFAULT_GATES = Gates()


def caption_hash(text: str) -> int:
    """64 bits; equal for texts that differ in case, punctuation and spaces alone, in any script."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
    return _hash(" ".join(words).encode())


def audio_hash(codes: list[Int[np.ndarray, "_ Q"]]) -> int:
    """64 bits of the first codebook's codes."""
    return _hash(b"|".join(sound[:, 0].astype("<i4").tobytes() for sound in codes))


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def repeated(hashes: Iterable[int | None], count: int) -> Bool[np.ndarray, "R"]:
    """Which of `count` conversations have the hash of an earlier one; None is nobody's.

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
