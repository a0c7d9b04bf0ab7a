"""`ualm eval reason`: does planning, asking and listening to itself help a model?"""

import json
import pathlib

_DESCRIPTION = """\
Measures on prompts of SoundScript that training never saw, with several seeds: open prompts with a plan and without;
dialogues with a simulated user against a single turn; reflections, version by version, against as many first versions
as take the same decode steps; how true hearing and critique are. Means over prompts, 95 % intervals by bootstrap.

  ualm eval reason --model runs/reason --out eval/reason
  ualm eval reason --model runs/reason --out eval/small --count 16 --seeds 3 --rounds 2

OUT/report.json and OUT/report.md hold the tables, OUT/pages three reflections that helped most and three that harmed
most. Killed at any moment, the same command goes on.
"""


def main(argv: list[str]) -> int:
    from ualm_jax.cli.arguments import Parser, integer, number, output_directory
    from ualm_jax.cli.generation_arguments import add_model, open_model

    parser = Parser("ualm eval reason", description=_DESCRIPTION)
    add_model(parser)
    parser.add_argument("--out", required=True, type=output_directory, metavar="DIR", help="folder to make or finish")
    parser.add_argument(
        "--count", type=integer(at_least=2), default=64, metavar="N", help="prompts (default %(default)s)"
    )
    parser.add_argument("--seeds", type=integer(at_least=1), default=3, metavar="N", help="default %(default)s")
    parser.add_argument("--rounds", type=integer(at_least=1), default=2, metavar="N", help="default %(default)s")
    parser.add_argument("--split", choices=("combination", "phrasing", "train"), default="combination")
    parser.add_argument(
        "--seconds", type=number(above=0, at_most=3600), help="of sounds; default: as they end, 6 s at most"
    )
    parser.add_argument("--cfg-scale", type=number(at_least=0, at_most=100), default=3.0, help="default %(default)s")
    parser.add_argument("--temperature", type=number(at_least=0, at_most=100), default=0.8, help="default %(default)s")
    parser.add_argument(
        "--selector", default="likelihood", metavar="NAME", help="scorer that chooses among as many at equal compute"
    )
    parser.add_argument("--slots", type=integer(at_least=1), default=16, help="thought about at once (%(default)s)")
    args = parser.parse_args(argv)
    model = open_model(args, slots=args.slots)
    for part in ("codec", "encoder", "tokenizer"):
        model.part(part)

    from ualm_jax.generate.scorers import load_scorer
    from ualm_jax.outputs import lock
    from ualm_jax.reason import How
    from ualm_jax.reason.measure import Measuring, measure
    from ualm_jax.reason.measured import tables
    from ualm_jax.reason.pages import write_pages

    settings = {"cfg_scale": args.cfg_scale, "temperature": args.temperature, "max_tokens": 256}
    settings |= {} if args.seconds else {"max_frames": round(6 * model.codec.frame_rate)}
    how = How(rounds=args.rounds, seconds=args.seconds, settings=settings)
    args.out.mkdir(parents=True, exist_ok=True)
    with lock(args.out):
        found = measure(
            model, Measuring(how, load_scorer(args.selector, model), args.count, args.seeds, args.split), args.out
        )
        made = tables(found, model.codec, args.seeds)
        write_pages(found["reflect"], model.codec, args.out / "pages")
        _write(made, args.out)
    return 0


def _write(made, out: pathlib.Path) -> None:
    from ualm_jax.audio.write import write_whole

    lines = []
    for title, rows in made.items():
        lines += [f"## {title}", "", "| | of prompts, 95 % interval | prompts |", "|---|---|---|"]
        lines += [*(f"| {name} | {mean} | {mean.prompts} |" for name, mean in rows.items()), ""]
    content = {
        title: {
            name: {"value": m.value, "interval": list(m.interval), "prompts": m.prompts} for name, m in rows.items()
        }
        for title, rows in made.items()
    }
    text = "\n".join(lines)
    print(text)
    write_whole(
        {out / "report.md": text.encode(), out / "report.json": (json.dumps(content, indent=1) + "\n").encode()}
    )
