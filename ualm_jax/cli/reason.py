"""`ualm reason enrich|dialogue|reflect`: sounds that are planned, asked about, listened to and made again."""

import argparse
import contextlib
import sys

from ualm_jax.cli.arguments import Parser, input_file, integer, number, output_directory, text
from ualm_jax.cli.generation_arguments import add_model, add_sampling, open_model, settings, tell_of_words
from ualm_jax.errors import UserError

_WHAT = {
    "enrich": "The model writes a plan of what is asked for, a rich caption, and makes the sound from it.",
    "dialogue": "The model asks until it knows enough, then plans and makes the sound.",
    "reflect": "The model plans, makes a sound, listens to it, says what is wrong with it, and makes it again.",
}
_DESCRIPTION = """\
{what}

  ualm reason {verb} --model runs/reason --prompt "Brass, then percussion." --out brass
  ualm reason {verb} --model runs/reason --prompts prompts.txt --out {verb} --rounds 2 --judge soundscript

OUT holds every version as a sound and report.html, a page with all that was planned, heard and said. With --prompt
on a terminal, each step can be edited: Enter takes it as it is, /edit asks for another text, /stop ends it.
With --prompts each line is a prompt, or JSON: {{"prompt": "Rain."}} with any of "id", "plan" (a rich caption),
"answers" (to the questions of a dialogue), "seconds" and "seed"; OUT/results.jsonl has a line for each, and the same
command goes on with what is missing. docs/reason.md explains what is said.
"""


def think(verb: str, argv: list[str]) -> int:
    """The verb `ualm reason VERB`."""
    args = _parse(verb, argv)
    return _one(verb, args) if args.prompt is not None else _many(verb, args)


def _parse(verb: str, argv: list[str]) -> argparse.Namespace:
    parser = Parser(f"ualm reason {verb}", description=_DESCRIPTION.format(verb=verb, what=_WHAT[verb]))
    add_model(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", type=text, metavar="TEXT", help="what is wanted")
    asked.add_argument("--prompts", type=input_file, metavar="FILE", help="a prompt on each line")
    parser.add_argument("--out", required=True, type=output_directory, metavar="DIR", help="folder to make or finish")
    parser.add_argument(
        "--rounds",
        type=integer(at_least=0, at_most=64),
        default=int(verb == "reflect"),
        metavar="N",
        help="of listening, critique and another version, at most (default %(default)s)",
    )
    parser.add_argument("--budget", type=integer(at_least=1), metavar="N", help="decode steps, then no further version")
    parser.add_argument(
        "--judge",
        metavar="NAME",
        help="scorer that says which version is best: likelihood, soundscript, clap:DIR, or your own",
    )
    parser.add_argument(
        "--judged-by", choices=("prompt", "plan"), default="prompt", help="what it compares with (default %(default)s)"
    )
    if verb == "dialogue":
        parser.add_argument(
            "--questions", type=integer(at_least=1), default=16, metavar="N", help="at most (default %(default)s)"
        )
    parser.add_argument("--seconds", type=number(above=0, at_most=3600), help="of every sound; default: as it ends")
    parser.add_argument("--cfg-scale", type=number(at_least=0, at_most=100), metavar="X", help="guidance; 1 is none")
    add_sampling(parser)
    parser.add_argument(
        "--text-temperature",
        type=number(at_least=0, at_most=100),
        metavar="T",
        help="of plans and critiques; default: 0",
    )
    parser.add_argument("--show", action="store_true", help="print every step of --prompts too")
    parser.add_argument("--slots", type=integer(at_least=1, at_most=4096), default=8, help="thought about at once")
    return parser.parse_args(argv)


def _how(verb: str, args: argparse.Namespace, judge):
    from ualm_jax.reason import How

    own = settings(args)
    if args.text_temperature is not None:
        own["text_temperature"] = args.text_temperature
    return How(
        rounds=args.rounds,
        ask=verb == "dialogue",
        questions=getattr(args, "questions", 16),
        budget=args.budget,
        judge=judge,
        judged_by=args.judged_by,
        seconds=args.seconds,
        settings=own,
    )


def _open(verb: str, args: argparse.Namespace):
    """The model, and how it is to think."""
    from ualm_jax.generate.scorers import load_scorer

    model = open_model(args, slots=args.slots if args.prompt is None else 1)
    if args.rounds and model.encoder is None:
        raise UserError(f"{args.model} has no audio encoder, so it can not listen; give --rounds 0.")
    return model, _how(verb, args, None if args.judge is None else load_scorer(args.judge, model))


def _one(verb: str, args: argparse.Namespace) -> int:
    from ualm_jax.outputs import check_new_folder
    from ualm_jax.reason import Reasoning, Wish
    from ualm_jax.reason.job import write_ended
    from ualm_jax.reason.report import decision

    check_new_folder(args.out)
    model, how = _open(verb, args)
    tell_of_words(model, [args.prompt])
    reasoning = Reasoning(model.session(seed=args.seed), Wish(args.prompt), how)
    for event in reasoning:
        _show(event)
        _let_edit(reasoning, event)
    write_ended(reasoning.ended, args.out)
    print(f"{args.out / 'report.html'}: {decision(reasoning.ended)}")
    return 0 if reasoning.ended.best else 1


def _let_edit(reasoning, event) -> None:
    """Questions are answered from standard input; on a terminal, other texts can be replaced."""
    from ualm_jax.reason import Asked, Ended, Made

    if isinstance(event, Ended | Made) or (not isinstance(event, Asked) and not sys.stdin.isatty()):
        return
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
            if line == "/stop":
                reasoning.stop()
            elif line == "/edit":
                print("Another text, with an empty line at its end:")
                reasoning.reply(_typed())
            elif isinstance(event, Asked):
                reasoning.reply(line)
            elif line:
                print("Enter goes on, /edit replaces this, /stop ends it.")
                continue
            return
        except EOFError:
            return
        except UserError as error:
            print(f"! {error}")


def _typed() -> str:
    """Lines until an empty one, or the end of the input."""
    lines = []
    with contextlib.suppress(EOFError):
        while line := input():
            lines.append(line)
    return "\n".join(lines)


def _many(verb: str, args: argparse.Namespace) -> int:
    from ualm_jax.generate.jobs_items import read_items
    from ualm_jax.generate.results import RESULTS
    from ualm_jax.reason.items import WishItem
    from ualm_jax.reason.job import Thinking, run_wishes

    with open(args.prompts, encoding="utf-8", errors="surrogateescape") as lines:
        items = read_items(lines, str(args.prompts), WishItem)
    model, how = _open(verb, args)
    tell_of_words(model, [item.prompt for item in items])
    done = 0

    def told(line) -> None:
        nonlocal done
        done += 1
        print(f"{done} of {len(items)}: {line['id']}: {line.get('error') or line.get('problem') or line['reason']}")

    thinking = Thinking(how, args.judge, args.seed)
    shown = {"show": lambda id, event: _show(event, f"{id}: ")} if args.show else {}
    lines = run_wishes(model, items, thinking, args.out, told=told, **shown)
    failed = [line for line in lines if "error" in line]
    print(f"{args.out / RESULTS}: {len(lines) - len(failed)} of {len(lines)} wishes have a sound")
    return 1 if failed else 0


def _show(event, whose: str = "") -> None:
    """A step in words. whose: stands before it."""
    from ualm_jax.reason import Asked, Criticised, Heard, Made, Planned

    match event:
        case Asked():
            print(f"{whose}? {event.text}")
        case Planned():
            print(f"{whose}Plan:\n{event.text}")
        case Made():
            clip, score = event.version.clip, event.version.score
            judged = "" if score is None else f", score {score.problem or format(score.value, '.3g')}"
            print(f"{whose}{event.version.name}: {clip.seconds:.2f} s, seed {clip.seed}{judged}")
        case Heard():
            print(f"{whose}Heard in {event.version}:\n{event.text}")
        case Criticised():
            print(f"{whose}Critique of {event.version}: {event.text}")
        case _:
            return
    problem = getattr(event, "problem", None)
    if problem:
        print(f"{whose}! {problem}")
