"""`ualm bench card`: everything worth knowing of a card, in minutes."""

import pathlib

from ualm_jax.cli.arguments import Parser, number, output_directory

_DESCRIPTION = """\
Runs the parts of `ualm bench` that say most of an accelerator, the most important first, each in a process of its own
with a time limit of its own, and writes each one's figures as soon as it ends. A part that fails or hangs costs its
own figures only. Parts that no time is left for are not begun.

  ualm bench card --out card                    on a card of 80 GB or more: eight minutes
  ualm bench card --size tiny --out trial       anywhere, to see that it works before a card is rented

In a checkout, `python tools/card_report.py card` makes tables and pictures of it. Ends with status 1 where a part did
not end well.
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm bench card", description=_DESCRIPTION)
    parser.add_argument("--out", type=output_directory, default=pathlib.Path("card"), help="folder (default card)")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="of the work (default %(default)s)")
    parser.add_argument(
        "--minutes", type=number(above=0), default=8.0, metavar="N", help="for everything (default %(default)g)"
    )
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="these, in turn; default all that there is time for")
    args = parser.parse_args(argv)

    from ualm_jax.bench import card
    from ualm_jax.errors import UserError

    parts = card.plan(args.size)
    if args.parts is not None:
        named = {part.name: part for part in parts}
        unknown = sorted(set(args.parts) - set(named))
        if unknown:
            raise UserError(f"--parts: there is no {', '.join(unknown)}; --size {args.size} has {', '.join(named)}.")
        parts = [named[name] for name in args.parts]
    args.out.mkdir(parents=True, exist_ok=True)
    found = card.run(parts, args.out, 60 * args.minutes, say=lambda line: print(line, flush=True))
    print(
        f"\n{sum(entry['status'] == 'done' for entry in found)} of {len(found)} parts done: {args.out / card.SUMMARY}"
    )
    return 0 if all(entry["status"] == "done" for entry in found) else 1
