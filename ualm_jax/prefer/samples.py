"""Several answers to each of many prompts, and their scores: made shard by shard, each a function of its prompts alone.

OUT/job.json               what the answers are made with; another job is refused
OUT/samples/00003.npz      the tokens of a shard's answers: codes [T, Q] or text ids [n] end to end, and their lengths
OUT/samples/00003.json     its prompts, and of every answer the seed, how it ended and its scores; written last
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int

from ualm_jax.audio.write import write_whole
from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, OneOf, check_fields
from ualm_jax.generate.best_of import candidates
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.inputs import Prompt
from ualm_jax.generate.jobs_items import Item
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.scorers import Scorer, score_all
from ualm_jax.prefer.shards import has_shard, read_shards, write_shard

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """count: answers to each prompt. seconds, seed, modality, settings: as of `Pipeline.generate`. shard_size: prompts
    that are saved together."""

    count: Annotated[int, Bounds(at_least=2)] = 5
    modality: Annotated[str, OneOf(("audio", "speech", "text"))] = "audio"
    seconds: float | None = None
    seed: Natural = 0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shard_size: Count = 16

    def __post_init__(self):
        check_fields(self, "prefer")


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """An answer. content: codes [T, Q], or ids [n] of a text. scores: by scorer, None where there is none, and then
    `problem` is why. end: "eos" or "eot" where the model ended it."""

    content: Int[np.ndarray, "..."]
    seed: int
    end: str | None
    scores: Mapping[str, float | None]
    problem: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Answered:
    """A prompt with its answers; none, and the reason in `error`, where it can not be answered."""

    id: str
    prompt: str
    samples: tuple[Sample, ...]
    error: str | None = None


def sample(
    pipeline: Pipeline, items: Sequence[Item], sampling: Sampling, scorers: Mapping[str, Scorer], out: pathlib.Path
) -> None:
    """Makes and scores what is still missing in the folder `out`. Answers depend on prompt and seed alone, so that
    neither interruptions nor what is made beside them change anything.

    Raises UserError where `out` holds another job.
    """
    _settle(pipeline, items, sampling, scorers, out)
    folder = out / "samples"
    folder.mkdir(exist_ok=True)
    for first in range(0, len(items), sampling.shard_size):
        name = f"{first // sampling.shard_size:05d}"
        if has_shard(folder, name):
            continue
        shard = items[first : first + sampling.shard_size]
        answers = _answers(pipeline, shard, first, sampling)
        content, entries = [], []
        for item, made in zip(shard, answers, strict=True):
            entries.append({"id": item.id, "prompt": item.prompt} | _entry(made, scorers))
            content += [] if isinstance(made, UserError) else [_content(answer) for answer in made]
        write_shard(folder, name, entries, content)
        log.info("%d of %d prompts answered and scored", first + len(shard), len(items))


def read_samples(out: pathlib.Path) -> Iterator[Answered]:
    """All that `sample` made, in the order of the prompts."""
    for entry, content in read_shards(out / "samples"):
        samples = tuple(Sample(next(content), **each) for each in entry.get("samples", ()))
        yield Answered(entry["id"], entry["prompt"], samples, entry.get("error"))


def _answers(
    pipeline: Pipeline, shard: Sequence[Item], first: int, sampling: Sampling
) -> list[list[Clip | Text] | UserError]:
    """For each prompt its answers, or why it has none."""
    made: list[list[Any] | UserError] = []
    asked, places = [], []
    for index, item in enumerate(shard):
        try:
            seed = item.seed if item.seed is not None else sampling.seed + (first + index) * sampling.count
            settings = dict(sampling.settings) | {"seed": seed % 2**32}
            seconds = sampling.seconds if item.seconds is None else item.seconds
            params = pipeline.sampling(sampling.modality, seconds, settings)
            prompts = candidates(Prompt(item.prompt, params, sampling.modality), sampling.count)
        except UserError as error:
            made.append(error)
            continue
        made.append([None] * sampling.count)
        places += [(index, number) for number in range(sampling.count)]
        asked += prompts
    for place, answer in pipeline.run(asked):
        index, number = places[place]
        if isinstance(answer, UserError):
            made[index] = answer
        elif not isinstance(made[index], UserError):
            made[index][number] = answer
    return made


def _entry(made: list[Clip | Text] | UserError, scorers: Mapping[str, Scorer]) -> dict[str, Any]:
    if isinstance(made, UserError):
        return {"error": str(made)}
    found = {name: score_all(scorer, [each.prompt for each in made], made) for name, scorer in scorers.items()}
    samples = []
    for place, answer in enumerate(made):
        problems = [f"{name}: {scores[place].problem}" for name, scores in found.items() if scores[place].problem]
        values = {name: scores[place].value for name, scores in found.items()}
        problem = "; ".join(problems) or None
        samples.append({"seed": answer.seed, "end": answer.end, "scores": values, "problem": problem})
    return {"samples": samples}


def _content(answer: Clip | Text) -> Int[np.ndarray, "..."]:
    return np.asarray(answer.ids if isinstance(answer, Text) else answer.codes, np.int32)


def _settle(
    pipeline: Pipeline, items: Sequence[Item], sampling: Sampling, scorers: Mapping[str, Scorer], out: pathlib.Path
) -> None:
    """Writes job.json, or finds that it says the same."""
    job = {
        "sampling": dataclasses.asdict(sampling),
        "scorers": list(scorers),
        "prompts": [item.key for item in items],
        "weights": pipeline.made_by.weights,
    }
    job, record = json.loads(json.dumps(job)), out / "job.json"
    if not record.is_file():
        write_whole({record: (json.dumps(job) + "\n").encode()})
        return
    before = json.loads(record.read_text())
    other = sorted(name for name in job.keys() | before.keys() if job.get(name) != before.get(name))
    if other:
        raise UserError(
            f"{out}: was begun with other {' and '.join(other)}; finish it with what began it, or choose another folder"
        )
