"""`ualm eval answers`: judges what a model says about SoundScript's sounds and texts."""

import argparse
import json
import pathlib
import sys

_DESCRIPTION = """\
Asks about sounds and captions of SoundScript that training never saw, and counts the true answers, kind by kind, with
95 % intervals (Wilson). --export writes the questions and sounds for other systems, whose
answers --answers judges.

  ualm eval answers --task question --model runs/script --json eval/question.json
  ualm eval answers --task text describe --split train --model runs/script
  ualm eval answers --task question --export questions/
  ualm eval answers --task question --answers said.jsonl

FILE.jsonl holds {"id": "question-combination-017", "answer": "two"} on each line. docs/soundscript.md lists the tasks.
"""


def main(argv: list[str]) -> int:
    from ualm_jax.cli.arguments import Parser, input_file, integer, model_directory, number, output_file

    parser = Parser("ualm eval answers", description=_DESCRIPTION)
    system = parser.add_mutually_exclusive_group(required=True)
    system.add_argument("--model", type=model_directory, metavar="DIR", help="a run, or what `ualm convert` made")
    system.add_argument("--answers", type=input_file, metavar="FILE.jsonl", help="what another system said")
    system.add_argument("--export", type=pathlib.Path, metavar="DIR", help="only write the questions and sounds")
    parser.add_argument("--task", nargs="+", default=["question"], metavar="TASK", help="default: question")
    parser.add_argument("--split", nargs="+", default=["combination"], help="default: combination, which is held out")
    parser.add_argument("--count", type=integer(at_least=1), default=256, metavar="N", help="of each (%(default)s)")
    parser.add_argument(
        "--max-seconds", type=number(above=0), default=4.0, metavar="S", help="only about shorter sounds"
    )
    parser.add_argument("--step", type=integer(at_least=0), metavar="N", help="of a run; default: its newest")
    parser.add_argument("--batch-size", type=integer(at_least=1), default=32, help="default %(default)s")
    parser.add_argument("--json", type=output_file(".json"), metavar="FILE", help="results and answers")
    args = parser.parse_args(argv)

    from ualm_jax.evaluate.soundscript.answers import questions, right, shares

    asked = [
        question
        for task in args.task
        for split in args.split
        for question in questions(task, split, args.count, args.max_seconds)
    ]
    if args.export is not None:
        _export(args.export, asked)
        return 0
    said = _said(args, asked)
    tables = shares(asked, said)
    for name, share in tables.items():
        print(f"{name:24} {share}   of {share.asked}")
    if args.json is not None:
        each = [
            {"id": q.id, "kind": q.kind, "asked": q.turns[-1][1], "true": q.answer, "said": s, "right": right(q, s)}
            for q, s in zip(asked, said, strict=True)
        ]
        content = {"tables": {name: share.to_dict() for name, share in tables.items()}, "items": each}
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


def _said(args: argparse.Namespace, asked: list) -> list[str]:
    if args.answers is not None:
        return _read(args.answers, asked)

    from ualm_jax.parallel.startup import start

    start()

    import jax

    from ualm_jax.errors import UserError
    from ualm_jax.evaluate.soundscript.answers import answer_all
    from ualm_jax.generate.sampling import SamplingParams
    from ualm_jax.pretrained import load

    run = load(args.model, step=args.step)
    for name in ("model", "tokenizer"):
        if getattr(run, name) is None:
            raise UserError(f"{args.model} holds no {name}.")
    params = SamplingParams(max_tokens=160)
    with jax.set_mesh(run.mesh):
        return list(answer_all(run.model, run.encoder, run.tokenizer, asked, params, args.batch_size))


def _read(path: pathlib.Path, asked: list) -> list[str]:
    """The answers in the order of the questions; one that is missing is empty, and therefore wrong."""
    from ualm_jax.errors import UserError

    found = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            record = json.loads(line)
            found[record["id"]] = str(record["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{path} line {number}: expected {{"id": ..., "answer": ...}}, found {line!r}') from error
    if not any(question.id in found for question in asked):
        raise UserError(f"{path}: none of its ids is asked about, such as {asked[0].id}.")
    missing = [question.id for question in asked if question.id not in found]
    if missing:
        print(f"{path}: {len(missing)} of {len(asked)} answers are missing, such as {missing[0]}", file=sys.stderr)
    return [found.get(question.id, "") for question in asked]


def _export(folder: pathlib.Path, asked: list) -> None:
    from ualm_jax.audio.write import write_sound
    from ualm_jax.evaluate.soundscript.benchmark import RATE

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for question in asked:
        record = {"id": question.id, "turns": question.turns}
        if question.wav is not None:
            record["wav"] = f"{question.id}.wav"
            write_sound(folder / record["wav"], question.wav, RATE)
        lines.append(json.dumps(record) + "\n")
    (folder / "questions.jsonl").write_text("".join(lines))
    print(f"{folder}: {len(asked)} questions")
