"""`ualm prefer build`: pairs to learn preferences from, and the best answers to adapt to first."""

import argparse
import pathlib

from ualm_jax.cli.arguments import Parser, input_file, integer, number, output_directory
from ualm_jax.cli.generation_arguments import tell_of_speech

_DESCRIPTION = """\
Lets a model answer each prompt several times, scores the answers, and writes two datasets: OUT/pairs, a better and a
worse answer to the same prompt, for preference learning, and OUT/winners, the best answers alone, to adapt the model to
first. OUT/report shows the scores and lets you hear both sides.

  ualm prefer build --workdir runs/tiny --prompts captions.txt --seconds 2 --scorer soundscript --out data/prefer
  ualm prefer build ... --scorer soundscript --scorer my_scorers.py:clap --combine rank \\
    --chosen-at-least soundscript=0.8 --margin 0.25

A line of the prompts is a text, or a JSON object with "prompt" and, if wanted, "id" and "seed". A scorer is a name
("likelihood", "soundscript", "clap:DIR", "audiobox:DIR", "judge:DIR"), module:function or file.py:function, called with
(prompt, clip); higher is better. An answer for which it fails or gives no finite number is left out and counted. After
an interruption the same command goes on; with other thresholds it makes other pairs of the same answers.
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm prefer build", description=_DESCRIPTION)
    parser.add_argument(
        "--workdir",
        required=True,
        type=pathlib.Path,
        metavar="DIR",
        help="of `ualm train`, or what `ualm convert` made",
    )
    parser.add_argument(
        "--step", type=integer(at_least=0), metavar="N", help="of a run; default: its newest checkpoint"
    )
    parser.add_argument("--prompts", required=True, type=input_file, metavar="FILE", help="a prompt on each line")
    parser.add_argument("--out", required=True, type=output_directory, metavar="DIR", help="folder to make or finish")
    parser.add_argument(
        "--scorer", required=True, action="append", metavar="NAME", dest="scorers", help="may be given several times"
    )
    parser.add_argument(
        "--samples", type=integer(at_least=2), default=5, help="answers to each prompt (default %(default)s)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=number(above=0, at_most=3600), help="exactly so long; default: as it ends")
    length.add_argument(
        "--max-seconds", type=number(above=0, at_most=3600), metavar="S", help="it ends by then (default 20)"
    )
    parser.add_argument("--modality", choices=("audio", "speech", "text"), default="audio", help="default %(default)s")
    parser.add_argument("--seed", type=integer(at_least=0, at_most=2**32 - 1), default=0, help="default %(default)s")
    parser.add_argument("--cfg-scale", type=number(at_least=0, at_most=100), metavar="X", help="guidance; 1 is none")
    parser.add_argument("--temperature", type=number(at_least=0, at_most=100), metavar="X", help="0 is greedy")
    parser.add_argument("--top-k", type=integer(at_least=0, at_most=2**31 - 1), metavar="N", help="0 is all")
    parser.add_argument("--slots", type=integer(at_least=1), default=8, help="made at a time (default %(default)s)")
    parser.add_argument(
        "--combine", choices=("sum", "rank"), default="sum", help="how scores become one (default %(default)s)"
    )
    parser.add_argument("--weight", **_bounds("of a scorer, 1 by default"))
    parser.add_argument("--pairs", type=integer(at_least=1), default=1, help="of each prompt (default %(default)s)")
    parser.add_argument(
        "--margin", type=number(at_least=0), default=0.0, help="least difference of the scores (default %(default)s)"
    )
    parser.add_argument("--chosen-at-least", **_bounds("least score of a chosen answer"))
    parser.add_argument("--rejected-at-most", **_bounds("highest score of a rejected one"))
    parser.add_argument(
        "--examples", type=integer(at_least=0), default=8, help="pairs in the report (default %(default)s)"
    )
    args = parser.parse_args(argv)

    from ualm_jax.parallel.startup import start

    start()

    from ualm_jax.generate.jobs_items import read_items
    from ualm_jax.generate.scorers import load_scorer
    from ualm_jax.prefer.build import build
    from ualm_jax.prefer.samples import Sampling
    from ualm_jax.prefer.select import Selection
    from ualm_jax.pretrained import load
    from ualm_jax.weights.fingerprints import parts_of

    items = read_items(args.prompts.read_text().splitlines(), str(args.prompts))
    pipeline = load(args.workdir, step=args.step, slots=args.slots)
    if args.modality == "speech":
        tell_of_speech(pipeline)
    scorers = {name: load_scorer(name, pipeline) for name in args.scorers}
    selection = Selection(
        combine=args.combine,
        weights=dict(args.weight),
        pairs=args.pairs,
        margin=args.margin,
        chosen_at_least=dict(args.chosen_at_least),
        rejected_at_most=dict(args.rejected_at_most),
    )
    settings = {name: getattr(args, name) for name in ("cfg_scale", "temperature", "top_k")}
    if args.max_seconds is not None:
        settings["max_frames"] = max(round(args.max_seconds * pipeline.part("codec").frame_rate), 1)
    sampling = Sampling(
        count=args.samples,
        modality=args.modality,
        seconds=args.seconds,
        seed=args.seed,
        settings={name: value for name, value in settings.items() if value is not None},
    )
    parts = parts_of(args.workdir)
    folders = {name: parts[name] for name in ("tokenizer", "codec") if name in parts}
    found = build(pipeline, items, sampling, scorers, selection, args.out, folders=folders, examples=args.examples)
    print(
        f"{found['pairs']} pairs and {found['winners']} winners of {found['answers']} answers to {found['prompts']} "
        f"prompts: {args.out / 'pairs'}, {args.out / 'winners'}; look at {args.out / 'report' / 'report.md'}"
    )
    return 0


def _bounds(help: str) -> dict:
    return dict(action="append", type=_named_number, default=[], metavar="NAME=X", help=help)


def _named_number(value: str) -> tuple[str, float]:
    name, _, amount = value.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"expected a scorer and a number, as in soundscript=0.8, got {value!r}")
    return name, number()(amount)
