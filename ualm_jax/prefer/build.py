"""`ualm prefer build`: prompts to answers, scores, pairs, and examples to adapt to first.

OUT/job.json, OUT/samples/   see samples.py; kept, so that other thresholds make other pairs of the same answers
OUT/selection.json           what pairs and winners were chosen with; written last
OUT/pairs, OUT/winners       datasets: for preference learning, and of the best answers alone for adapting to them
OUT/report/                  counts, histograms, examples to hear
"""

import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ualm_jax.audio.write import write_whole
from ualm_jax.errors import UserError
from ualm_jax.generate.jobs_items import Item
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.scorers import Scorer
from ualm_jax.outputs import lock
from ualm_jax.prefer.datasets import Writer
from ualm_jax.prefer.report import summary, write_report
from ualm_jax.prefer.samples import Sampling, read_samples, sample
from ualm_jax.prefer.select import Chosen, Selection, choose

log = logging.getLogger(__name__)


def build(
    pipeline: Pipeline,
    items: Sequence[Item],
    sampling: Sampling,
    scorers: Mapping[str, Scorer],
    selection: Selection,
    out: pathlib.Path,
    *,
    folders: Mapping[str, pathlib.Path],
    examples: int = 8,
) -> dict[str, Any]:
    """Makes the folder `out`; returns what the report says (report.summary).

    folders: of the model's "tokenizer" and "codec". examples: pairs to hear. Killed at any moment, the same call goes
    on, and the result is the same. With another selection, pairs and winners are made anew from the same answers.
    Raises UserError where `out` holds answers of another job, and where nothing is left to learn from.
    """
    if not scorers:
        raise UserError("Answers are chosen by their scores; name at least one scorer.")
    selection.check(list(scorers))
    if any(item.audio is not None or item.negative is not None or item.modality is not None for item in items):
        raise UserError("Prompts of pairs are texts alone; leave out audio, negative and modality.")
    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        sample(pipeline, items, sampling, scorers, out)
        wanted = json.loads(json.dumps(dataclasses.asdict(selection) | {"examples": examples}))
        record = out / "selection.json"
        if record.is_file() and (before := json.loads(record.read_text()))["selection"] == wanted:
            return before["found"]
        found = _select(pipeline, sampling, scorers, selection, out, folders, examples)
        write_whole({record: (json.dumps({"selection": wanted, "found": found}) + "\n").encode()})
    return found


def _select(
    pipeline: Pipeline,
    sampling: Sampling,
    scorers: Mapping[str, Scorer],
    selection: Selection,
    out: pathlib.Path,
    folders: Mapping[str, pathlib.Path],
    examples: int,
) -> dict[str, Any]:
    answered = list(read_samples(out))
    chosen = [_choose(each.samples, scorers, selection) for each in answered]
    codec, tokenizer = pipeline.part("codec"), pipeline.part("tokenizer")
    found = summary(answered, chosen, list(scorers))
    heard = None if sampling.modality == "text" else codec
    write_report(out / "report", answered, chosen, found, heard, tokenizer, examples)
    vocabulary = pipeline.part("model").architecture.vocabulary
    made_from = {"job": json.loads((out / "job.json").read_text()), "selection": dataclasses.asdict(selection)}
    writer = Writer(tokenizer, codec, vocabulary, sampling.modality, folders, made_from)
    pairs, winners = [], []
    for asked, each in zip(answered, chosen, strict=True):
        for number, pair in enumerate(each.pairs):
            pairs.append(writer.pair(asked, number, asked.samples[pair.chosen], asked.samples[pair.rejected]))
        if each.winner is not None:
            winners.append(writer.winner(asked, asked.samples[each.winner]))
    for name, records in (("pairs", pairs), ("winners", winners)):
        if not records:  # then what was made with other bounds stays
            reasons = ", ".join(f"{count} x {reason}" for reason, count in found["dropped"].items())
            raise UserError(
                f"{out}: no {name} are left ({reasons or 'nothing was asked'}); {out / 'report'} shows the scores: let "
                "thresholds pass more, and run again"
            )
    (out / "selection.json").unlink(missing_ok=True)
    for name, records in (("pairs", pairs), ("winners", winners)):
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.rmtree(out / f"{name}.partial", ignore_errors=True)
        writer.write(records, name, out / name)
    return found


def _choose(samples, scorers: Mapping[str, Scorer], selection: Selection) -> Chosen:
    if not samples:
        return Chosen((), None, ())
    scores = {name: [each.scores[name] for each in samples] for name in scorers}
    return choose(scores, [each.content for each in samples], selection)
