"""Many prompts and questions: slots stay full, results come in order, and a job that was killed goes on.

OUT/results.jsonl   a line for each item, appended when it is done, put in order when all are
OUT/ID.wav, ...     the sounds, with their records
OUT/job.json        what all items have in common; another job is refused
OUT/lock            while somebody is at it

A sound is written before its line, and both whole. Killed at any moment, the same job makes what has no line; nothing
else, and with the same tokens.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ualm_jax.audio.write import check_format
from ualm_jax.errors import UserError
from ualm_jax.generate.best_of import Candidate, candidates, check_ranked, rank
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.inputs import Prompt
from ualm_jax.generate.jobs_items import Item
from ualm_jax.generate.output import parse_loudness, save_sound
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.results import complete, settle
from ualm_jax.generate.scorers import Scorer
from ualm_jax.outputs import lock


@dataclasses.dataclass(frozen=True)
class Job:
    """What the items of a job have in common.

    modality, seconds, seed, settings: as of `Pipeline.generate`. candidates: made of each item; the best is kept, so a
    scorer must say which. suffix, depth, loudness, plot: see `output.save_sound`.
    """

    modality: str = "audio"
    seconds: int | float | None = None
    seed: int = 0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    candidates: int = 1
    scorer: str | None = None
    suffix: str = ".wav"
    depth: str | None = None
    loudness: str | None = None
    plot: bool = False

    def __post_init__(self):
        check_format(f"sound{self.suffix}", self.depth)
        if self.loudness is not None:
            parse_loudness(self.loudness)
        if self.candidates < 1:
            raise UserError(f"There must be at least 1 candidate, got {self.candidates}.")
        if (self.scorer is None) != (self.candidates == 1):
            raise UserError(
                "Several candidates need a scorer that says which is best, and a scorer several candidates."
            )


def run_job(
    pipeline: Pipeline,
    items: Sequence[Item],
    job: Job,
    out: str | os.PathLike,
    *,
    scorer: Scorer | None = None,
    told: Callable[[Mapping[str, Any]], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Makes what is still missing of a job in the folder `out`; returns the lines of all items, in order.

    scorer: what job.scorer names. told: called with the line of each item as it is done, and first with those that
    were done before. An item that cannot be made has its reason in `error`, and the others go on.
    Raises UserError where `out` holds another job, or another process works there; OSError where there is no room.
    """
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        settle(out, dataclasses.asdict(job) | {"settings": dict(job.settings)} | {"weights": pipeline.made_by.weights})

        def make(left: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            return _make(pipeline, [(index, items[index]) for index in left], job, out, scorer)

        return complete(out, items, make, told)


def prompts_of(pipeline: Pipeline, item: Item, index: int, job: Job) -> list[Prompt]:
    """What is asked for an item: a prompt for each candidate. Raises UserError for what can not be asked."""
    modality = item.kind(job.modality)
    seconds = job.seconds if item.seconds is None else item.seconds
    seed = (job.seed + index * job.candidates) % 2**32 if item.seed is None else item.seed
    params = pipeline.sampling(modality, None if modality == "text" else seconds, dict(job.settings) | {"seed": seed})
    prompt = Prompt(item.prompt, params, modality, item.audio, item.negative)
    return candidates(prompt, job.candidates)


def _make(
    pipeline: Pipeline, left: Sequence[tuple[int, Item]], job: Job, out: pathlib.Path, scorer: Scorer | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, line) of items as they are done."""
    owners: list[tuple[int, int]] = []  # of each prompt that was handed over: its item, and which candidate it is
    groups: dict[int, list[Clip | Text | UserError | None]] = {}
    failed: list[tuple[int, UserError]] = []

    def prompts() -> Iterator[Prompt]:
        for index, item in left:
            try:
                asked = prompts_of(pipeline, item, index, job)
            except UserError as error:
                failed.append((index, error))
                continue
            groups[index] = [None] * len(asked)
            for number, prompt in enumerate(asked):
                owners.append((index, number))
                yield prompt

    by_index = dict(left)
    for place, answer in pipeline.run(prompts()):
        index, number = owners[place]
        groups[index][number] = answer
        if all(each is not None for each in groups[index]):
            yield index, _finish(groups.pop(index), by_index[index], job, out, scorer)
        while failed:
            index, error = failed.pop()
            yield index, {"error": str(error)}
    while failed:
        index, error = failed.pop()
        yield index, {"error": str(error)}


def _finish(
    answers: list[Clip | Text | UserError], item: Item, job: Job, out: pathlib.Path, scorer: Scorer | None
) -> dict[str, Any]:
    """The line of an item, and its sound on the disk."""
    errors = [answer for answer in answers if isinstance(answer, UserError)]
    if errors:
        return {"error": str(errors[0])}
    ranked = None
    if scorer is not None:
        ranked = rank(scorer, answers)
        try:
            check_ranked(ranked)
        except UserError as error:
            return {"error": str(error)}
    best = answers[0] if ranked is None else ranked[0].clip
    line: dict[str, Any] = {"seed": best.seed, "end": best.end}
    if ranked is not None:
        line["candidates"] = ranking(ranked)
    if isinstance(best, Text):
        return line | {"text": best.text}
    path = out / f"{item.id}{job.suffix}"
    try:
        more = {} if ranked is None else {"candidates": line["candidates"]}
        how = dict(depth=job.depth, loudness=job.loudness, plot=job.plot)
        save_sound(path, *best.sound, best.record(), more=more, **how)
    except UserError as error:
        return {"error": str(error)}
    return line | {"file": path.name, "seconds": best.seconds}


def ranking(ranked: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Seeds and scores, the best first, ready for JSON."""
    entries = []
    for each in ranked:
        problem = {} if each.score.problem is None else {"problem": each.score.problem}
        entries.append({"seed": each.clip.seed, "score": each.score.value} | problem)
    return entries
