"""Report pages of the reflections that helped most and of those that harmed most."""

import pathlib
import shutil
from collections.abc import Sequence

from ualm_jax.audio.write import write_whole
from ualm_jax.codecs.base import Codec
from ualm_jax.evaluate.soundscript.judge import Verdict
from ualm_jax.generate.clip import Clip
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.reason.builders.traces import Trace
from ualm_jax.reason.events import Ended, Version
from ualm_jax.reason.measure import Case, heard_in, obeys
from ualm_jax.reason.report import to_html


def write_pages(cases: Sequence[Case], codec: Codec, folder: pathlib.Path, each: int = 3) -> None:
    """Writes `each` good-1.html, ... and bad-1.html, ...: by how many more tracks the last version has right than the
    first. Traces of one version are left out; a page is good or bad only if something changed."""
    changed = []
    for case in cases:
        for trace in case.traces:
            if len(trace.takes) > 1:
                first, last = (_right(obeys(case, heard_in(codec, take.codes))) for take in _ends_of(trace))
                changed.append((last - first, trace))
    changed.sort(key=lambda pair: -pair[0])
    good = [trace for gain, trace in changed if gain > 0][:each]
    bad = [trace for gain, trace in changed[::-1] if gain < 0][:each]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pages = {f"good-{place}": trace for place, trace in enumerate(good, start=1)}
    pages |= {f"bad-{place}": trace for place, trace in enumerate(bad, start=1)}
    if pages:
        write_whole(
            {folder / f"{name}.html": to_html(ended_of(trace, codec)).encode() for name, trace in pages.items()}
        )


def ended_of(trace: Trace, codec: Codec) -> Ended:
    """How a trace ended, with its sounds."""
    params = SamplingParams(seed=trace.seed)
    versions = tuple(
        Version(
            f"v{number}",
            Clip(codec.decode(take.codes), codec.sample_rate, take.codes, trace.wanted.prompt, params),
            heard=take.heard,
            critique=take.critique,
        )
        for number, take in enumerate(trace.takes, start=1)
    )
    best = None if trace.best is None else versions[trace.best]
    return Ended(trace.wanted.prompt, trace.reason, trace.problem, trace.plan, (), versions, best, trace.steps)


def _ends_of(trace: Trace):
    return trace.takes[0], trace.takes[-1]


def _right(verdict: Verdict) -> int:
    return sum(right is True for right in verdict.tracks.values())
