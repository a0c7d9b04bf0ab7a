"""What a model thought and made for each of many prompts: kept shard by shard, each a function of its prompts alone.

OUT/job.json, OUT/traces/   see generate/results.py and prefer/shards.py
"""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.results import settle
from ualm_jax.generate.scorers import Scorer, score_all
from ualm_jax.prefer.shards import has_shard, read_shards, write_shard
from ualm_jax.reason.course import How, Wish
from ualm_jax.reason.events import Asked, Criticised, Ended
from ualm_jax.reason.reasoning import Reasoning, run

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A prompt that a model is given. id, index: of the entry in the pool; truth: its rich caption. plan: used instead
    of the model's own. seed: of the first of its traces."""

    id: str
    prompt: str
    truth: str
    seed: int
    index: int
    plan: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Take:
    """A version of a sound. score: by the scorer, None where it gave none; `problem` says why."""

    codes: Int[np.ndarray, "T Q"]
    heard: str | None
    critique: str | None
    score: float | None
    problem: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """One time that the model thought about `wanted`. problem: what went wrong, after `takes` were made. best: index of
    the take that was kept. steps: decode steps."""

    wanted: Wanted
    seed: int
    plan: str | None
    takes: tuple[Take, ...]
    reason: str
    problem: str | None
    best: int | None
    steps: int


@dataclasses.dataclass(frozen=True)
class Tracing:
    """traces: how many of each prompt, with consecutive seeds. listen_only: stop when the first version is criticised.
    user: answers the questions of dialogues. scorer: judges every version against the truth. shard_size: prompts that
    are saved together.
    """

    how: How
    traces: int = 1
    listen_only: bool = False
    user: Callable[[Wanted, str], str] | None = None
    scorer: Scorer | None = None
    shard_size: int = 64


def begin_traces(pipeline: Pipeline, tracing: Tracing, out: pathlib.Path, made_with: dict[str, Any]) -> None:
    """Says what traces in the folder `out` are made with: prompts, writer and settings identify them.

    Raises UserError where `out` holds traces of something else.
    """
    settle(out, made_with | {"weights": pipeline.made_by.weights, "traces": tracing.traces})


def make_traces(pipeline: Pipeline, wanted: Sequence[Wanted], tracing: Tracing, out: pathlib.Path) -> None:
    """Makes what is still missing in a folder of `begin_traces`."""
    folder = out / "traces"
    folder.mkdir(exist_ok=True)
    for first in range(0, len(wanted), tracing.shard_size):
        name = f"{first // tracing.shard_size:05d}"
        if has_shard(folder, name):
            continue
        shard = wanted[first : first + tracing.shard_size]
        entries, contents = [], []
        for each, found in zip(shard, _think(pipeline, shard, tracing), strict=True):
            entries.append(
                {"wanted": dataclasses.asdict(each), "traces": [_entry(each, *one, tracing) for one in found]}
            )
            contents += [np.asarray(version.clip.codes, np.int32) for _, ended in found for version in ended.versions]
        write_shard(folder, name, entries, contents)
        log.info("%d of %d prompts thought about", first + len(shard), len(wanted))


def read_traces(out: pathlib.Path) -> Iterator[list[Trace]]:
    """All that `make_traces` made, prompt by prompt."""
    for entry, contents in read_shards(out / "traces"):
        wanted = Wanted(**entry["wanted"])
        found = []
        for trace in entry["traces"]:
            takes = tuple(Take(next(contents), **take) for take in trace.pop("takes"))
            found.append(Trace(wanted, takes=takes, **trace))
        yield found


def _think(pipeline: Pipeline, shard: Sequence[Wanted], tracing: Tracing) -> list[list[tuple[int, Ended]]]:
    """For each prompt and each of its traces: seed and end."""
    found: list[list[Any]] = [[None] * tracing.traces for _ in shard]
    places: dict[Reasoning, tuple[int, int, int]] = {}

    def reasonings() -> Iterator[Reasoning]:
        for index, each in enumerate(shard):
            for number in range(tracing.traces):
                seed = (each.seed + number) % 2**32
                reasoning = Reasoning(pipeline.session(seed=seed), Wish(each.prompt, each.plan), tracing.how)
                places[reasoning] = index, number, seed
                yield reasoning

    for reasoning, event in run(reasonings()):
        if isinstance(event, Asked) and tracing.user is not None:
            reasoning.reply(tracing.user(shard[places[reasoning][0]], event.text))
        elif isinstance(event, Criticised) and tracing.listen_only and event.problem is None:
            reasoning.stop()
        elif isinstance(event, Ended):
            index, number, seed = places.pop(reasoning)
            found[index][number] = seed, event
    return found


def _entry(wanted: Wanted, seed: int, ended: Ended, tracing: Tracing) -> dict[str, Any]:
    takes = []
    clips = [version.clip for version in ended.versions]
    scores = [] if tracing.scorer is None else score_all(tracing.scorer, [wanted.truth] * len(clips), clips)
    for place, version in enumerate(ended.versions):
        score = scores[place] if scores else None
        takes.append(
            {
                "heard": version.heard,
                "critique": version.critique,
                "score": score and score.value,
                "problem": score and score.problem,
            }
        )
    best = None if ended.best is None else ended.versions.index(ended.best)
    told = {"reason": ended.reason, "problem": ended.problem, "best": best, "steps": ended.steps}
    return {"seed": seed, "plan": ended.plan, "takes": takes} | told
