"""Verdicts counted: shares with confidence intervals, errors, confusions."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ualm_jax.evaluate.soundscript.judge import TRACKS, Verdict


@dataclasses.dataclass(frozen=True)
class Share:
    """right of asked, and the 95 % confidence interval of the share (Wilson)."""

    right: int
    asked: int

    @property
    def value(self) -> float:
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        found = binomtest(self.right, self.asked).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"

    def to_dict(self) -> dict[str, Any]:
        return {"right": self.right, "asked": self.asked, "value": self.value, "interval": list(self.interval)}


@dataclasses.dataclass(frozen=True)
class Tally:
    """Of some captions. all: those with nothing wrong. tracks: of the captions that ask something of a track.

    errors: median and 90th percentile of the absolute errors of paired events, in cents and milliseconds; empty
    where there are none.
    """

    all: Share
    tracks: dict[str, Share]
    errors: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        tracks = {name: share.to_dict() for name, share in self.tracks.items()}
        errors = {name: {"median": a, "90th percentile": b} for name, (a, b) in self.errors.items()}
        return {"all": self.all.to_dict(), "tracks": tracks, "errors": errors}


def tally(verdicts: Sequence[Verdict]) -> Tally:
    """Raises ValueError where there are none."""
    if not verdicts:
        raise ValueError("there is nothing to count")
    tracks = {}
    for name in TRACKS:
        judged = [verdict.tracks[name] for verdict in verdicts if verdict.tracks[name] is not None]
        if judged:
            tracks[name] = Share(sum(judged), len(judged))
    measured = {
        "pitch, cents": [cents for verdict in verdicts for cents in verdict.cents],
        "duration, ms": [1000 * seconds for verdict in verdicts for seconds in verdict.duration_errors],
        "gap, ms": [1000 * seconds for verdict in verdicts for seconds in verdict.gap_errors],
    }
    errors = {
        name: tuple(np.percentile(np.abs(values), [50, 90]).tolist()) for name, values in measured.items() if values
    }
    return Tally(Share(sum(verdict.right for verdict in verdicts), len(verdicts)), tracks, errors)


def confusions(verdicts: Sequence[Verdict]) -> dict[tuple[str, str], int]:
    """How often an event was asked for and heard as another; "nothing" is where a partner is missing."""
    pairs = (pair for verdict in verdicts for pair in verdict.pairs)
    return dict(collections.Counter((asked or "nothing", heard or "nothing") for asked, heard in pairs))
