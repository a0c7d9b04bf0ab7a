"""What was heard against what was asked for, on tracks that do not depend on each other.

class     the kinds that sound are those that were asked for, whatever their number and order
count     so many events as were asked for, whatever they are
order     the kinds follow each other as asked for, whatever their numbers
pitch     every pitch is within a quarter tone of what was asked for; the ends of a sweep within a tone
duration  every duration is within 60 ms or a fifth
gap       every pause between an event and the next is within 60 ms or a fifth
loudness  what was called louder is louder, by 3 dB at least
overlap   what should sound while the first event does begins within it

A track that nothing was asked of is None. Pitches, durations and gaps are looked at where events can be paired; an
event that has no partner is a fault of every track that asks something of it.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from ualm_jax.data.raw.soundscript import Event, Scene

TRACKS = ("class", "count", "order", "pitch", "duration", "gap", "loudness", "overlap")
PITCH_CENTS, SWEEP_CENTS = 50.0, 200.0
SECONDS, SHARE = 0.06, 0.2
LOUDER_DB = 3.0
SUSTAINED = ("tone", "buzz", "sweep", "noise")  # whose end can be heard


@dataclasses.dataclass(frozen=True)
class Claim:
    """What is asked of one event; None where nothing is.

    label: see Event.label. pitch_hz, end_pitch_hz: lowest and highest. seconds: duration. gap: seconds of silence after
    the event before, whose nominal end counts where it is struck or plucked. level: those of a higher one are louder.
    over: whether it sounds while the first event does. lasts: its nominal seconds, which count where its end cannot be
    heard.
    """

    label: str
    pitch_hz: tuple[float, float] | None = None
    end_pitch_hz: tuple[float, float] | None = None
    seconds: float | None = None
    gap: float | None = None
    level: float | None = None
    over: bool = False
    lasts: float = 0.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """tracks: by name, True for right. Errors are of paired events: cents too high, seconds too long.

    pairs: labels asked for and heard, None where a partner is missing.
    """

    tracks: dict[str, bool | None]
    pairs: tuple[tuple[str | None, str | None], ...]
    cents: tuple[float, ...]
    duration_errors: tuple[float, ...]
    gap_errors: tuple[float, ...]

    @property
    def right(self) -> bool:
        return all(right is not False for right in self.tracks.values())

    @property
    def share(self) -> float:
        """The share of tracks that are right, among those of which something was asked."""
        asked = [right for right in self.tracks.values() if right is not None]
        return sum(asked) / len(asked)


def exact_claims(scene: Scene) -> tuple[Claim, ...]:
    """All that is true of a scene without a backdrop, asked for exactly."""
    claims, before = [], None
    for event in scene.events:
        claims.append(
            Claim(
                label=event.label,
                pitch_hz=None if event.pitch_hz is None else (event.pitch_hz, event.pitch_hz),
                end_pitch_hz=None if event.end_pitch_hz is None else (event.end_pitch_hz, event.end_pitch_hz),
                seconds=event.duration if event.kind in SUSTAINED else None,
                gap=None if before is None else event.start - before.end,
                level=event.loudness_db,
                lasts=event.duration,
            )
        )
        before = event
    return tuple(claims)


def judge(heard: Sequence[Event], claims: Sequence[Claim]) -> Verdict:
    """heard: of hear.hear."""
    labels = [event.label for event in heard]
    asked = [claim.label for claim in claims]
    pairs = _align(asked, labels)
    partner = {i: heard[j] for i, j in pairs if i is not None and j is not None and asked[i] == labels[j]}
    cents, durations, gaps, pitched = [], [], [], []
    for i, event in partner.items():
        claim = claims[i]
        for wanted, found in ((claim.pitch_hz, event.pitch_hz), (claim.end_pitch_hz, event.end_pitch_hz)):
            if wanted is not None:
                cents.append(_cents(found, wanted))
                pitched.append(abs(cents[-1]) <= (SWEEP_CENTS if event.kind == "sweep" else PITCH_CENTS))
        if claim.seconds is not None:
            durations.append((event.duration - claim.seconds, claim.seconds))
        if claim.gap is not None and i - 1 in partner:
            last = partner[i - 1]
            seconds = last.duration if last.kind in SUSTAINED else claims[i - 1].lasts
            gaps.append((event.start - last.start - seconds - claim.gap, claim.gap))
    wanted = {
        "pitch": sum((claim.pitch_hz is not None) + (claim.end_pitch_hz is not None) for claim in claims),
        "duration": sum(claim.seconds is not None for claim in claims),
        "gap": sum(claim.gap is not None for claim in claims),
    }
    found = {"pitch": pitched, "duration": list(map(_near, durations)), "gap": list(map(_near, gaps))}
    tracks = {
        "class": set(labels) == set(asked),
        "count": len(labels) == len(asked),
        "order": _runs(labels) == _runs(asked),
        **{name: (sum(found[name]) == number if number else None) for name, number in wanted.items()},
        "loudness": _loudness(claims, partner),
        "overlap": _overlap(claims, partner),
    }
    return Verdict(
        tracks=tracks,
        pairs=tuple((None if i is None else asked[i], None if j is None else labels[j]) for i, j in pairs),
        cents=tuple(cents),
        duration_errors=tuple(error for error, _ in durations),
        gap_errors=tuple(error for error, _ in gaps),
    )


def judge_scene(heard: Sequence[Event], scene: Scene) -> Verdict:
    """Whether all of a scene was heard as it is: what tells a codec's faults. The scene has no backdrop."""
    return judge(heard, exact_claims(scene))


def _cents(found: float, wanted: tuple[float, float]) -> float:
    """Distance to the nearer end of the band, 0 inside it."""
    low, high = wanted
    return 1200 * math.log2(found / min(max(found, low), high))


def _near(error: tuple[float, float]) -> bool:
    off, wanted = error
    return abs(off) <= max(SECONDS, SHARE * wanted)


def _runs(labels: Sequence[str]) -> list[str]:
    return [name for name, _ in itertools.groupby(labels)]


def _loudness(claims: Sequence[Claim], partner: dict[int, Event]) -> bool | None:
    """Every two claims of different level must be heard in that relation."""
    levels = [(i, claim.level) for i, claim in enumerate(claims) if claim.level is not None]
    differing = [(i, j) for (i, a), (j, b) in itertools.permutations(levels, 2) if a > b]
    if not differing:
        return None
    return all(
        i in partner and j in partner and partner[i].loudness_db - partner[j].loudness_db >= LOUDER_DB
        for i, j in differing
    )


def _overlap(claims: Sequence[Claim], partner: dict[int, Event]) -> bool | None:
    over = [i for i, claim in enumerate(claims) if claim.over]
    if not over:
        return None
    below = partner.get(0)
    return below is not None and all(i in partner and below.start < partner[i].start < below.end for i in over)


def _align(asked: Sequence[str], heard: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Pairs of indices with the fewest missing, extra and mistaken events (edit distance)."""
    cost = [[i + j if i * j == 0 else 0 for j in range(len(heard) + 1)] for i in range(len(asked) + 1)]
    for i, j in itertools.product(range(1, len(asked) + 1), range(1, len(heard) + 1)):
        mistaken = cost[i - 1][j - 1] + (asked[i - 1] != heard[j - 1])
        cost[i][j] = min(mistaken, cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    # From the end; of paths that cost the same, the one whose missing and extra events come last.
    i, j, pairs = len(asked), len(heard), []
    while i or j:
        if j and cost[i][j] == cost[i][j - 1] + 1:
            j -= 1
            pairs.append((None, j))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
