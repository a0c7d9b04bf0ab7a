"""The ground truth of a generated sound: which events, when, how loud, at which pitch."""

import dataclasses
import math
from typing import Any

KINDS = ("tone", "buzz", "sweep", "noise", "click", "pluck", "kick", "snare", "hat", "clap")
COLOURS = ("white", "pink", "brown")  # of noise: power falls by 0, 3, 6 dB per octave


@dataclasses.dataclass(frozen=True)
class Event:
    """One sound within a scene.

    start, duration: seconds; the event is silent outside of them.
    loudness_db: level of the loudest 50 ms of its interval, as render.level_db measures it (RMS, dB of full scale).
    pitch_hz: fundamental of a tone, buzz or pluck, or where a sweep begins; None for other kinds.
    end_pitch_hz: where a sweep ends; None for other kinds.
    colour: of noise; None for other kinds.
    """

    kind: str
    start: float
    duration: float
    loudness_db: float
    pitch_hz: float | None = None
    end_pitch_hz: float | None = None
    colour: str | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"an event's kind is one of {KINDS}, not {self.kind!r}")
        numbers = [
            self.start,
            self.duration,
            self.loudness_db,
            self.pitch_hz or 1.0,
            self.end_pitch_hz or 1.0,
        ]
        if not all(map(math.isfinite, numbers)) or self.start < 0 or self.duration <= 0:
            raise ValueError(f"an event has finite numbers, start >= 0 and duration > 0: {self}")
        if (self.pitch_hz is not None) != (self.kind in ("tone", "buzz", "sweep", "pluck")):
            raise ValueError(f"tones, buzzes, sweeps and plucks have a pitch, other kinds none: {self}")
        if (self.end_pitch_hz is not None) != (self.kind == "sweep"):
            raise ValueError(f"sweeps and only they have an end pitch: {self}")
        if (self.colour in COLOURS) != (self.kind == "noise") or self.colour not in (None, *COLOURS):
            raise ValueError(f"noise has a colour of {COLOURS}, other kinds none: {self}")

    @property
    def end(self) -> float:
        return self.start + self.duration

    @property
    def label(self) -> str:
        """The kind; of noise its colour, and of sweeps whether they rise or fall."""
        if self.kind == "noise":
            return self.colour
        if self.kind == "sweep":
            return "rise" if self.end_pitch_hz > self.pitch_hz else "fall"
        return self.kind


@dataclasses.dataclass(frozen=True)
class Scene:
    """Events in order of their start, within `seconds`. `noise_seed` fixes the random samples inside them."""

    seconds: float
    events: tuple[Event, ...]
    noise_seed: int

    def __post_init__(self):
        if not self.events:
            raise ValueError("a scene has at least one event")
        if any(event.end > self.seconds + 1e-9 for event in self.events):
            raise ValueError(f"an event ends after the scene's {self.seconds} s: {self.events}")
        if any(a.start > b.start for a, b in zip(self.events, self.events[1:], strict=False)):
            raise ValueError(f"events are listed by their start: {self.events}")

    @property
    def backdrop(self) -> Event | None:
        """The event that lasts the whole scene while others come and go; None if there is no such event."""
        first = self.events[0]
        whole = len(self.events) > 1 and first.start == 0.0 and first.duration == self.seconds
        return first if whole else None

    @property
    def foreground(self) -> tuple[Event, ...]:
        return self.events[1:] if self.backdrop else self.events

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; fields that do not apply to a kind are left out."""
        events = [{k: v for k, v in dataclasses.asdict(e).items() if v is not None} for e in self.events]
        return {"seconds": self.seconds, "noise_seed": self.noise_seed, "events": events}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Scene":
        """The inverse of to_dict. Raises ValueError or TypeError on anything a scene can not be."""
        return cls(**{**fields, "events": tuple(Event(**event) for event in fields["events"])})
