"""What a scene of language 2 is to be, in words: everything that its caption may say and that a checker can check.

A plan is a few parts, one after the other. A part is one to four like events. What a plan leaves open (the pitch of "a
tone") may be anything; what it leaves unsaid has a meaning of its own: an event that is neither short nor long lasts
0.35 s. docs/soundscript.md has the tables.
"""

import dataclasses
import hashlib
import itertools
from typing import Any

LABELS = ("tone", "buzz", "rise", "fall", "white", "brown", "click", "pluck", "kick", "snare", "hat", "clap")
PITCHED = ("tone", "buzz", "pluck")
SUSTAINED = ("tone", "buzz", "rise", "fall", "white", "brown")  # which may be short or long
STRUCK_SECONDS = {"click": 0.01, "pluck": 0.6, "kick": 0.25, "snare": 0.2, "hat": 0.1, "clap": 0.15}
SECONDS = {"short": 0.15, None: 0.35, "long": 0.8}
LEVEL_DB = {"loud": -20.0, None: -26.0, "soft": -32.0}
NOTES = tuple(f"{name}{octave}" for octave in (3, 4, 5) for name in "CDEFGAB")
MIDI = {note: 12 * (int(note[1]) + 1) + (0, 2, 4, 5, 7, 9, 11)["CDEFGAB".index(note[0])] for note in NOTES}
# MIDI numbers that a pitch is drawn from where no note is named; none of them is in NOTES, so that every pitch has one
# name.
BANDS = {"low": (45, 46, 47, 49, 51), None: (58, 61, 63, 66), "high": (73, 75, 78, 80, 82)}
GAPS = {"at once": 0.1, "then": 0.25, "pause": 0.6}  # seconds of silence between two parts
WITHIN = 0.15  # seconds of silence between the events of a part
OVER = ("click", "hat", "clap")  # which may sound while a long tone does
OVER_PITCHES = (None, "low", *NOTES[:14])  # of that tone: all below 500 Hz
MOST_EVENTS = 4
LONGEST = 4.0  # seconds

_HELD_OUT = 24  # one in so many keys


@dataclasses.dataclass(frozen=True)
class Part:
    """count events of one kind. pitch: "low", "high", a note of NOTES or None; duration: "short", "long" or None;
    level: "loud", "soft" or None. Raises ValueError for what no part can be."""

    kind: str
    count: int = 1
    pitch: str | None = None
    duration: str | None = None
    level: str | None = None

    def __post_init__(self):
        if self.kind not in LABELS or not 1 <= self.count <= MOST_EVENTS:
            raise ValueError(f"a part has one to {MOST_EVENTS} events of a kind in {LABELS}: {self}")
        if self.pitch is not None and (self.kind not in PITCHED or self.pitch not in ("low", "high", *NOTES)):
            raise ValueError(f"only {', '.join(PITCHED)} have a pitch: low, high or a note: {self}")
        if self.duration not in SECONDS or (self.duration and self.kind not in SUSTAINED):
            raise ValueError(f"only {', '.join(SUSTAINED)} are short or long: {self}")
        if self.level not in LEVEL_DB:
            raise ValueError(f"a level is loud, soft or None: {self}")

    @property
    def seconds(self) -> float:
        """The duration of one event."""
        return SECONDS[self.duration] if self.kind in SUSTAINED else STRUCK_SECONDS[self.kind]

    @property
    def whole(self) -> float:
        """Seconds from the first onset to the last end."""
        return self.count * self.seconds + (self.count - 1) * WITHIN


@dataclasses.dataclass(frozen=True)
class Plan:
    """parts in order; links[i], between parts i and i + 1: "then", "pause", "at once", or "while".

    While: the first part is one long tone below 500 Hz, the second clicks, hats or claps within it; none follows.
    Raises ValueError for what no plan can be.
    """

    parts: tuple[Part, ...]
    links: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.parts or len(self.links) != len(self.parts) - 1:
            raise ValueError(f"a plan has a part, and a link between every two: {self}")
        if any(link not in (*GAPS, "while") for link in self.links):
            raise ValueError(f"a link is one of {', '.join(GAPS)}, while: {self}")
        if sum(part.count for part in self.parts) > MOST_EVENTS:
            raise ValueError(f"a plan has at most {MOST_EVENTS} events: {self}")
        if any(dataclasses.replace(a, count=b.count) == b for a, b in itertools.pairwise(self.parts)):
            raise ValueError(f"neighbours differ in more than their number: {self}")
        if "while" in self.links:
            below, above = self.parts if len(self.parts) == 2 else (None, None)
            long_tone = below and (below.kind, below.count, below.duration) == ("tone", 1, "long")
            if not (long_tone and below.pitch in OVER_PITCHES and above.kind in OVER and above.whole <= 0.65):
                raise ValueError(f"only {', '.join(OVER)} sound while one long tone below 500 Hz does: {self}")
        if self.whole > LONGEST - 0.3:
            raise ValueError(f"a plan lasts less than {LONGEST} s with what surrounds it: {self}")

    @property
    def overlaps(self) -> bool:
        return "while" in self.links

    @property
    def whole(self) -> float:
        """Seconds from the first onset to the last end."""
        if self.overlaps:
            return self.parts[0].whole
        return sum(part.whole for part in self.parts) + sum(GAPS[link] for link in self.links)

    @property
    def held_out(self) -> bool:
        """Whether training must never see it: some combination in it is held out."""
        return any(is_held_out(key, _HELD_OUT) for key in self.combinations)

    @property
    def combinations(self) -> list[str]:
        """The pairs of properties by which plans are held out: kind and pitch, kind and number, kind after kind."""
        keys = [f"{part.kind} at {part.pitch}" for part in self.parts if part.pitch is not None]
        keys += [f"{part.count} {part.kind}" for part in self.parts if part.count > 1]
        return keys + [f"{a.kind}, {b.kind}" for a, b in itertools.pairwise(self.parts)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what is None or the default is left out."""
        parts = [{k: v for k, v in dataclasses.asdict(part).items() if v is not None} for part in self.parts]
        return {"parts": parts, "links": list(self.links)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Plan":
        return cls(tuple(Part(**part) for part in fields["parts"]), tuple(fields["links"]))


def is_held_out(key: str, one_in: int) -> bool:
    """Whether a key is held out: the same answer on every machine and in every version."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, salt=b"soundscript-2").digest()
    return int.from_bytes(digest) % one_in == 0
