"""Many wishes: thought about side by side, written down one by one, and a job that was killed goes on.

OUT/job.json, OUT/results.jsonl   see generate/results.py
OUT/ID/v1.wav, v2.wav, ...        every version, with how it was made beside it
OUT/ID/report.html                all of it on a page to look at and to listen to
OUT/lock                          while somebody is at it

The folder of an item appears whole, and then its line.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ualm_jax.audio.write import write_whole
from ualm_jax.errors import UserError
from ualm_jax.generate.output import save_sound
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.results import complete, settle
from ualm_jax.outputs import lock
from ualm_jax.reason.course import How, Wish
from ualm_jax.reason.events import Asked, Ended, Event
from ualm_jax.reason.items import WishItem
from ualm_jax.reason.reasoning import Reasoning, run
from ualm_jax.reason.report import to_html


@dataclasses.dataclass(frozen=True)
class Thinking:
    """What the wishes of a job have in common. how: judge excluded, which `judge` names. seed: of the first item; the
    others follow it."""

    how: How
    judge: str | None = None
    seed: int = 0

    def to_mapping(self) -> dict[str, Any]:
        own = {field.name: getattr(self.how, field.name) for field in dataclasses.fields(How)}
        known = {name: own[name] for name in own if name not in ("judge", "listener", "critic")}
        return known | {"settings": dict(self.how.settings), "judge": self.judge, "seed": self.seed}


def run_wishes(
    pipeline: Pipeline,
    items: Sequence[WishItem],
    thinking: Thinking,
    out: str | os.PathLike,
    *,
    told: Callable[[Mapping[str, Any]], None] = lambda line: None,
    show: Callable[[str, Event], None] = lambda id, event: None,
) -> list[dict[str, Any]]:
    """Thinks about what is still missing of a job in the folder `out`; returns the lines of all items, in order.

    told: called with the line of each item as it is done, and first with those that were done before; show: with the id
    of an item and each of its events. A line has the `problem` where something went wrong after a version was made, or
    the `error` where none was; the others go on.
    Raises UserError where `out` holds another job, or another process works there; OSError where there is no room.
    """
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        settle(out, thinking.to_mapping() | {"weights": pipeline.made_by.weights})

        def make(left: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            places: dict[Reasoning, int] = {}

            def reasonings() -> Iterator[Reasoning]:
                for index in left:
                    reasoning = _reasoning(pipeline, items[index], index, thinking)
                    places[reasoning] = index
                    yield reasoning

            for index, ended in _ends(reasonings(), places, items, show):
                yield index, write_ended(ended, out / items[index].id)

        return complete(out, items, make, told)


def line_of(ended: Ended) -> dict[str, Any]:
    """The line that reports one wish, ready for JSON."""
    versions = [
        {
            "name": each.name,
            "file": f"{each.name}.wav",
            "seconds": each.clip.seconds,
            "seed": each.clip.seed,
            "score": None if each.score is None else each.score.value,
            "heard": each.heard,
            "critique": each.critique,
            "faults": each.faults,
        }
        for each in ended.versions
    ]
    line = {"prompt": ended.prompt, "talk": [list(turn) for turn in ended.talk], "plan": ended.plan}
    line |= {"versions": versions, "best": ended.best and ended.best.name, "reason": ended.reason, "steps": ended.steps}
    if ended.problem is not None:
        line["problem" if ended.best else "error"] = ended.problem
    return line


def _reasoning(pipeline: Pipeline, item: WishItem, index: int, thinking: Thinking) -> Reasoning:
    seed = (thinking.seed + index) % 2**32 if item.seed is None else item.seed
    seconds = thinking.how.seconds if item.seconds is None else item.seconds
    how = dataclasses.replace(thinking.how, seconds=seconds)
    return Reasoning(pipeline.session(seed=seed), Wish(item.prompt, item.plan), how)


def _ends(
    reasonings: Iterator[Reasoning],
    places: dict[Reasoning, int],
    items: Sequence[WishItem],
    show: Callable[[str, Event], None],
) -> Iterator[tuple[int, Ended]]:
    """The last event of each. Questions get the answers of their item, in order."""
    for reasoning, event in run(reasonings):
        index = places[reasoning]
        show(items[index].id, event)
        if isinstance(event, Asked) and event.number <= len(items[index].answers):
            try:
                reasoning.reply(items[index].answers[event.number - 1])
            except UserError:  # an empty answer: the question stays without one, which is said
                continue
        elif isinstance(event, Ended):
            del places[reasoning]  # with all its sounds
            yield index, event


def write_ended(ended: Ended, folder: pathlib.Path) -> dict[str, Any]:
    """Writes the folder of a wish, which replaces the one that is there; returns its line."""
    line, beside = line_of(ended), folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for version, told in zip(ended.versions, line["versions"], strict=True):
        save_sound(beside / told["file"], version.clip.samples, version.clip.rate, version.clip.record(), more=told)
    write_whole({beside / "report.html": to_html(ended).encode(errors="replace")})
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return line
