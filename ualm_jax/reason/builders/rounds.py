"""What the two rounds learn from, beside the conversations of round 1: pairs of a model's answers, reflections on its
first attempts, and pairs with and without reflection.

OUT/texts.jsonl, OUT/traces/   what was asked, and what became of it; kept
OUT/dataset                    the records
OUT/quarantine.jsonl           prompts of which there is no record, and why
OUT/report.json                counts; written last
"""

import dataclasses
import json
import logging
import pathlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.audio.write import write_whole
from ualm_jax.data.dataset.records import Record
from ualm_jax.errors import UserError
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.scorers import load_function, load_scorer
from ualm_jax.outputs import lock
from ualm_jax.prefer.datasets import Writer as DatasetWriter
from ualm_jax.prefer.select import REASONS, Selection, choose
from ualm_jax.reason.builders.config import BuildConfig
from ualm_jax.reason.builders.pool import Pool
from ualm_jax.reason.builders.records import Records
from ualm_jax.reason.builders.traces import Take, Trace, Tracing, Wanted, begin_traces, make_traces, read_traces
from ualm_jax.reason.builders.writer import Writer, checked_text
from ualm_jax.reason.course import How
from ualm_jax.reason.plans import found_nothing

log = logging.getLogger(__name__)

SOUNDSCRIPT_LISTENER = "ualm_jax.reason.ear:rich_caption_of"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What becomes of a prompt's traces. reason: why there is no record, None where there is one. places: indices of
    the better and the worse trace, or take. margin: by how much the scorer prefers the better one."""

    reason: str | None
    places: tuple[int, int] = (0, 0)
    margin: float = 0.0


class Kind(NamedTuple):
    """How traces become records. choose: what becomes of the traces of a prompt. record: makes it. most: number of
    records."""

    name: str
    choose: Callable[[list[Trace]], Choice]
    record: Callable[[Records, list[Trace], Choice], Record]
    most: int | None = None


@dataclasses.dataclass(frozen=True)
class Builder:
    """Makes the datasets of both rounds. pipeline: the model of the round. folders: paths of its "tokenizer" and
    "codec"."""

    pipeline: Pipeline
    pool: Pool
    writer: Writer
    config: BuildConfig
    folders: Mapping[str, pathlib.Path]

    def pairs(self, out: pathlib.Path) -> dict[str, Any]:
        """Round 1: each prompt answered several times; the best and the worst answer, where they differ enough."""
        config = self.config
        tracing = Tracing(self._how(0), config.samples, scorer=self._scorer(), shard_size=config.shard_size)
        kind = Kind("pairs", self._best_and_worst, _answers, config.pairs)
        return self._build(kind, out, config.preference_prompts, tracing)

    def reflections(self, out: pathlib.Path) -> dict[str, Any]:
        """Round 2: a first attempt at a rich caption, what is heard of it, the writer's critique, the right sound."""
        config = self.config
        listener = None if config.listener == "model" else self._listener()
        how = dataclasses.replace(self._how(1), critic=self.writer.critique, listener=listener)
        tracing = Tracing(how, listen_only=True, shard_size=config.shard_size)
        kind = Kind("reflections", self._usable, self._reflection)
        return self._build(kind, out, config.reflections, tracing)

    def final_pairs(self, out: pathlib.Path) -> dict[str, Any]:
        """Round 2: pairs of the sounds before and after a reflection; the scorer says which is better."""
        tracing = Tracing(self._how(1), scorer=self._scorer(), shard_size=self.config.shard_size)
        kind = Kind("final", self._with_or_without, _with_and_without)
        return self._build(kind, out, self.config.final_prompts, tracing)

    def _build(self, kind: Kind, out: pathlib.Path, count: int, tracing: Tracing) -> dict[str, Any]:
        """Texts, traces and records, each as far as it is missing; returns the report."""
        out.mkdir(parents=True, exist_ok=True)
        with lock(out):
            made_with = {"kind": kind.name, "config": _plain(self.config), "pool": self.pool.fingerprint()}
            made_with |= {"writer": self.writer.name}
            begin_traces(self.pipeline, tracing, out, made_with)
            wanted, refused = self._texts(out, kind.name, count)
            make_traces(self.pipeline, wanted, tracing, out)
            selected = {name: getattr(self.config, name) for name in _SELECTION}
            if (out / "report.json").is_file():
                report = json.loads((out / "report.json").read_text())
                if report["selected"] == selected:
                    return report
            choices = _at_most(kind.most, [kind.choose(traces) for traces in read_traces(out)])
            left_out = list(refused)
            for each, choice in zip(wanted, choices, strict=True):
                if choice.reason is not None:
                    left_out.append({"id": each.id, "prompt": each.prompt, "reason": choice.reason})
            lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in left_out)
            write_whole({out / "quarantine.jsonl": lines.encode()})
            if all(choice.reason is not None for choice in choices):
                raise UserError(
                    f"{out}: nothing is left to learn from; {out / 'quarantine.jsonl'} says why, such as: "
                    f"{left_out[0]['reason']}"
                )
            (out / "report.json").unlink(missing_ok=True)
            for folder in (out / "dataset", out / "dataset.partial"):
                shutil.rmtree(folder, ignore_errors=True)
            made = self._write(kind, choices, out, made_with)
            reasons = dict(Counter(each["reason"].split(":")[0] for each in left_out).most_common())
            report = {"prompts": count, "records": made, "left out": reasons, "selected": selected}
            write_whole({out / "report.json": (json.dumps(report, indent=1) + "\n").encode()})
        return report

    def _write(self, kind: Kind, choices: Sequence[Choice], out: pathlib.Path, made_with: dict[str, Any]) -> int:
        """The dataset, record by record: there may be more of them than memory holds."""
        model, codec, tokenizer = (self.pipeline.part(name) for name in ("model", "codec", "tokenizer"))
        vocabulary, name = model.architecture.vocabulary, f"{self.pool.name}-{kind.name}"
        made_by = {"writer": self.writer.name, "weights": self.pipeline.made_by.weights}
        maker = Records(tokenizer, codec, vocabulary, name, made_by)

        def records() -> Iterator[Record]:
            for traces, choice in zip(read_traces(out), choices, strict=True):
                if choice.reason is None:
                    yield kind.record(maker, traces, choice)

        counted = _Counted(sum(choice.reason is None for choice in choices), records)
        writer = DatasetWriter(tokenizer, codec, vocabulary, "audio", self.folders, made_with)
        writer.write(counted, name, out / "dataset")
        return len(counted)

    def _texts(self, out: pathlib.Path, kind: str, count: int) -> tuple[list[Wanted], list[dict[str, Any]]]:
        """What the writer has written, and the entries that it wrote nothing for, with the reason. These are tried
        again until the first trace is made; then it stays as it is."""
        file, begun = out / "texts.jsonl", (out / "traces").is_dir()
        lines = [json.loads(line) for line in file.read_bytes().splitlines()] if file.is_file() else [None] * count
        left = [index for index, line in enumerate(lines) if line is None or ("reason" in line and not begun)]
        if left:
            with ThreadPoolExecutor(self.config.writer.workers) as threads:
                for index, line in zip(left, threads.map(lambda i: self._text(i, kind), left), strict=True):
                    lines[index] = line
            write_whole({file: "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()})
        refused = [line for line in lines if "reason" in line]
        if not begun and len(refused) > min(self.config.max_bad_fraction * count, count - 1):
            raise UserError(
                f"{out}: {len(refused)} of {count} prompts could not be written, such as: {refused[0]['reason']}; mend "
                "it, or allow more with --config.max_bad_fraction, and run again"
            )
        return [Wanted(**line) for line in lines if "reason" not in line], refused

    def _text(self, index: int, kind: str) -> dict[str, Any]:
        place = (_FIRST[kind] * self.config.preference_prompts + index) % len(self.pool)
        seed = (self.config.seed + index * self.config.samples) % 2**32
        try:
            entry = self.pool[place]
            truth, prompt = entry.caption.write(), checked_text(self.writer.prompt(entry.caption, seed), "prompt")
        except UserError as error:
            return {"id": f"{self.pool.name} {place}", "prompt": "", "reason": str(error)}
        wanted = Wanted(entry.id, prompt, truth, seed, place, truth if kind == "reflections" else None)
        return dataclasses.asdict(wanted)

    def _best_and_worst(self, traces: list[Trace]) -> Choice:
        usable = [place for place, trace in enumerate(traces) if trace.problem is None and trace.takes]
        if not usable:
            return Choice(traces[0].problem)
        return self._choice([traces[place].takes[0] for place in usable], usable)

    def _usable(self, traces: list[Trace]) -> Choice:
        (trace,) = traces
        if trace.problem is None and not found_nothing(trace.takes[0].critique):
            try:
                self.pool.sound(trace.wanted.index, SAMPLE_RATE)
            except UserError as error:
                return Choice(str(error))
        return Choice(trace.problem)

    def _reflection(self, records: Records, traces: list[Trace], choice: Choice) -> Record:
        (trace,) = traces
        critique = trace.takes[0].critique
        if found_nothing(critique):
            return records.reflection(trace, critique, None)
        sound = self.pool.sound(trace.wanted.index, records.codec.sample_rate)
        return records.reflection(trace, critique, records.codec.encode(np.asarray(sound, np.float32)))

    def _with_or_without(self, traces: list[Trace]) -> Choice:
        (trace,) = traces
        if len(trace.takes) < 2:
            return Choice(trace.problem or "no reflection took place, for the critique found nothing wrong")
        return self._choice(trace.takes, (0, 1))

    def _choice(self, takes: Sequence[Take], places: Sequence[int]) -> Choice:
        """The best and the worst take. places: what `Choice.places` says of each."""
        found = choose({"score": [take.score for take in takes]}, [take.codes for take in takes], self._selection())
        if not found.pairs:
            return Choice(REASONS[found.dropped[-1]])
        (pair,) = found.pairs
        return Choice(None, (places[pair.chosen], places[pair.rejected]), pair.scores[0] - pair.scores[1])

    def _selection(self) -> Selection:
        bounds = {name: getattr(self.config, name) for name in ("chosen_at_least", "rejected_at_most")}
        bounds = {name: {} if bound is None else {"score": bound} for name, bound in bounds.items()}
        return Selection(margin=self.config.margin, **bounds)

    def _how(self, rounds: int) -> How:
        names = ("temperature", "text_temperature", "cfg_scale", "max_tokens")
        return How(
            rounds=rounds,
            seconds=self.config.seconds,
            settings={name: getattr(self.config, name) for name in names},
        )

    def _scorer(self):
        return load_scorer(self.config.scorer, self.pipeline)

    def _listener(self):
        name = self.config.listener
        return load_function(SOUNDSCRIPT_LISTENER if name == "soundscript" else name, "Listener")


@dataclasses.dataclass(frozen=True)
class _Counted:
    """`count` records, which are made as they are iterated over."""

    count: int
    make: Callable[[], Iterator[Record]]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        return self.make()

    def __contains__(self, record: object) -> bool:
        return any(record is each for each in self)


def _answers(records: Records, traces: list[Trace], choice: Choice) -> Record:
    return records.answers(*(traces[place] for place in choice.places))


def _with_and_without(records: Records, traces: list[Trace], choice: Choice) -> Record:
    return records.with_and_without(traces[0], choice.places[0])


def _at_most(most: int | None, choices: list[Choice]) -> list[Choice]:
    """The choices, of which at most `most` are kept: those with the largest margins."""
    kept = [place for place, choice in enumerate(choices) if choice.reason is None]
    kept = set(sorted(kept, key=lambda place: -choices[place].margin)[:most])
    return [
        choice if place in kept or choice.reason is not None else Choice("fewer records are wanted")
        for place, choice in enumerate(choices)
    ]


_FIRST = {"pairs": 0, "reflections": 1, "final": 2}
"""Where each stage begins in the pool, in units of preference_prompts: with entries of its own, while the pool
lasts."""

_SELECTION = ("margin", "chosen_at_least", "rejected_at_most", "pairs")
"""Settings that decide which records are made of the traces, not the traces themselves."""


def _plain(config: BuildConfig) -> dict[str, Any]:
    """The settings that decide the traces: not those of speed, and not those of what becomes of the traces."""
    others = ("slots", "workers", "max_bad_fraction", "writer", *_SELECTION)
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in others}
