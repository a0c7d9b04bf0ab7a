"""What was measured, in numbers: means over prompts with 95 % intervals (bootstrap of the prompts), by kind."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ualm_jax.codecs.base import Codec
from ualm_jax.data.raw.soundscript.rich import by_ear, rich_caption
from ualm_jax.evaluate.soundscript.judge import TRACKS, Verdict
from ualm_jax.evaluate.soundscript.plans import plan_of
from ualm_jax.reason.builders.traces import Take, Trace
from ualm_jax.reason.measure import Case, heard_in, obeys
from ualm_jax.reason.plans import audible, read
from ualm_jax.tokens.rich_caption import compare, parse

_RESAMPLES = 2000
_CONTROL = {"count": "quantity", "order": "order", "pitch": "pitch", "duration": "duration", "class": "texture"}


@dataclasses.dataclass(frozen=True)
class Mean:
    """Mean over prompts, each of which counts with the mean of its traces. interval: 95 %, by bootstrap over the
    prompts."""

    value: float
    interval: tuple[float, float]
    prompts: int

    @classmethod
    def of(cls, groups: Sequence[Sequence[float]]) -> "Mean | None":
        """groups: values of each prompt; prompts without any are left out. None where there are none at all."""
        means = np.array([np.mean(group) for group in groups if len(group)])
        if not len(means):
            return None
        rng = np.random.default_rng(0)
        drawn = means[rng.integers(len(means), size=(_RESAMPLES, len(means)))].mean(axis=1)
        low, high = np.percentile(drawn, [2.5, 97.5])
        return cls(float(means.mean()), (float(low), float(high)), len(means))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


class _Ear:
    """Judges takes, each once."""

    def __init__(self, codec: Codec):
        self._codec, self._known = codec, {}

    def events(self, take: Take):
        if id(take) not in self._known:
            self._known[id(take)] = heard_in(self._codec, take.codes)
        return self._known[id(take)]

    def verdict(self, case: Case, take: Take) -> Verdict | bool:
        return obeys(case, self.events(take))

    def right(self, case: Case, take: Take) -> float:
        verdict = self.verdict(case, take)
        return float(verdict if isinstance(verdict, bool) else verdict.right)

    def share(self, case: Case, take: Take) -> float:
        """Share of the tracks asked for that are right."""
        tracks = [right for right in self.verdict(case, take).tracks.values() if right is not None]
        return sum(tracks) / len(tracks)


def tables(found: Mapping[str, Sequence[Case]], codec: Codec, seeds: int) -> dict[str, dict[str, Mean]]:
    """Tables by their titles, rows by their names, as far as there is anything to tell. found: what `measure.measure`
    returned."""
    ear = _Ear(codec)

    def over(name: str, value: Callable[[Case, Any], float | None]) -> Mean | None:
        groups = [[value(case, trace) for trace in case.traces] for case in found[name]]
        return Mean.of([[each for each in group if each is not None] for group in groups])

    def ends(case: Case, trace) -> float:
        """1 where the sound that was kept is right; a trace without a sound is wrong."""
        return 0.0 if trace.best is None else ear.right(case, trace.takes[trace.best])

    made = {
        "open prompts accepted": {"without a plan": over("imagine-plain", ends), "planned": over("imagine-plan", ends)},
        "dialogues that satisfy": {"single turn": over("dialogue-plain", ends), "asked": over("dialogue-ask", ends)},
        "captions obeyed in full": _reflected(found, ear, over, ends, seeds),
        "reflection, version against the first": {
            "better": over("reflect", lambda case, trace: _change(ear, case, trace, 1)),
            "the same": over("reflect", lambda case, trace: _change(ear, case, trace, 0)),
            "worse": over("reflect", lambda case, trace: _change(ear, case, trace, -1)),
        },
        "steps that hold": {
            "plan says what the prompt says": over("reflect", _planned),
            "hearing: rich caption is true": over("reflect", lambda case, trace: _hears(ear, trace)),
            "critique: true of plan and sound": over("reflect", lambda case, trace: _criticises(ear, trace)),
            "regeneration: critique followed": over("reflect", lambda case, trace: _follows(ear, case, trace)),
        },
    }
    for track in TRACKS:
        rows = {"without a plan": ("plain", 0), "planned": ("reflect", 0), "last version": ("reflect", -1)}
        made[f"fine control: {_CONTROL.get(track, track)}"] = {
            name: over(folder, lambda case, trace, at=at, track=track: _track(ear, case, trace, at, track))
            for name, (folder, at) in rows.items()
        }
    told = {title: {name: mean for name, mean in rows.items() if mean is not None} for title, rows in made.items()}
    return {title: rows for title, rows in told.items() if rows}


def _reflected(found, ear: _Ear, over, ends, seeds: int) -> dict[str, Mean | None]:
    rows = {"without a plan": over("plain", ends)}
    most = max((len(trace.takes) for case in found["reflect"] for trace in case.traces), default=0)
    for number in range(most):  # a trace that ended earlier counts with its last version
        rows[f"v{number + 1}"] = over("reflect", lambda case, trace, n=number: _version(ear, case, trace, n))
    rows["kept by its own hearing"] = over("reflect", ends)
    rows["best of its versions (oracle)"] = over(
        "reflect", lambda case, trace: max((ear.right(case, take) for take in trace.takes), default=0.0)
    )
    number = len(found["best-of"][0].traces) // seeds
    groups = [
        [case.traces[first : first + number] for first in range(0, len(case.traces), number)]
        for case in found["best-of"]
    ]
    cases = found["best-of"]

    def over_groups(value: Callable[[Case, Sequence[Trace]], float | None]) -> Mean | None:
        values = [[value(case, group) for group in of_case] for case, of_case in zip(cases, groups, strict=True)]
        return Mean.of([[each for each in of_case if each is not None] for of_case in values])

    rows[f"one of {number} at equal compute"] = over_groups(
        lambda case, group: float(np.mean([ends(case, t) for t in group]))
    )
    rows[f"best of {number} by the selector"] = over_groups(lambda case, group: _selected(case, group, ends))
    rows[f"best of {number} at equal compute (oracle)"] = over_groups(
        lambda case, group: max(ends(case, t) for t in group)
    )
    return rows


def _selected(case: Case, group: Sequence[Trace], ends: Callable[[Case, Trace], float]) -> float | None:
    """`ends` of the trace that the selector scores highest; None without a selector, 0 where it scored none."""
    if all(take.score is None and take.problem is None for trace in group for take in trace.takes):
        return None
    scored = [trace for trace in group if trace.takes and trace.takes[0].score is not None]
    return ends(case, max(scored, key=lambda trace: trace.takes[0].score)) if scored else 0.0


def _version(ear: _Ear, case: Case, trace, number: int) -> float:
    return ear.right(case, trace.takes[min(number, len(trace.takes) - 1)]) if trace.takes else 0.0


def _change(ear: _Ear, case: Case, trace, way: int) -> float | None:
    """Whether the last version obeys more (way 1), as much (0) or less (-1) than the first; None where there is one
    version."""
    if len(trace.takes) < 2:
        return None
    return float(np.sign(ear.share(case, trace.takes[-1]) - ear.share(case, trace.takes[0])) == way)


def _planned(case: Case, trace) -> float:
    plan = None if trace.plan is None else read(trace.plan)[0]
    return float(plan is not None and not compare(rich_caption(case.plan), plan))


def _truth(ear: _Ear, take: Take):
    """The rich caption of the sound by the program that hears; None where no plan describes it."""
    plan = plan_of(ear.events(take))
    plan = None if plan is None else by_ear(plan)
    return None if plan is None else rich_caption(plan)


def _hears(ear: _Ear, trace) -> float | None:
    judged = [take for take in trace.takes if take.heard is not None and _truth(ear, take) is not None]
    if not judged:
        return None
    heard = [(_truth(ear, take), read(take.heard)[0]) for take in judged]
    return float(np.mean([said is not None and not compare(true, audible(said)) for true, said in heard]))


def _criticises(ear: _Ear, trace) -> float | None:
    judged = [take for take in trace.takes if take.critique is not None and _truth(ear, take) is not None]
    if not judged:
        return None
    wanted = audible(parse(trace.plan))
    return float(np.mean([_bare(compare(wanted, _truth(ear, t)).sentence()) == _bare(t.critique) for t in judged]))


def _follows(ear: _Ear, case: Case, trace) -> float | None:
    """Share of the versions made after a true critique that have fewer faults; None where there are none."""
    found = []
    for before, after in zip(trace.takes, trace.takes[1:], strict=False):
        true, new = _truth(ear, before), _truth(ear, after)
        if true is None or before.critique is None:
            continue
        if _bare(compare(audible(parse(trace.plan)), true).sentence()) == _bare(before.critique):
            found.append(new is not None and ear.share(case, after) > ear.share(case, before))
    return float(np.mean(found)) if found else None


def _track(ear: _Ear, case: Case, trace, at: int, track: str) -> float | None:
    """Whether a version is right on a track, no sound being wrong; None where nothing is asked of it."""
    verdict = ear.verdict(case, trace.takes[at]) if trace.takes else obeys(case, ())
    right = verdict.tracks[track]
    return None if right is None else float(right)


def _bare(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())
