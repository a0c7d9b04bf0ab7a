"""`ualm ask`: what a model says about sounds, or to a question alone."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from ualm_jax.cli.arguments import Parser, input_file, text
from ualm_jax.cli.generation_arguments import add_model, add_sampling, limited, open_model, settings, tell_of_words
from ualm_jax.errors import UserError

_DESCRIPTION = """\
Asks a model that has an audio encoder about sound files. Of several files each is asked about alone, side by side. A
file of many questions is for `ualm generate --prompts`.

  ualm ask --model runs/hears --audio dog.ogg "What do you hear?"
  ualm ask --model runs/hears --audio a.wav --audio b.wav "How many clicks are there?"
"""

_SLOTS = 8  # at most: of more sounds, each is asked about when a slot is free


def main(argv: list[str]) -> int:
    parser = Parser("ualm ask", description=_DESCRIPTION)
    add_model(parser)
    parser.add_argument(
        "--audio", action="append", type=input_file, default=[], metavar="FILE", help="a sound; may be given again"
    )
    parser.add_argument("question", type=text, help="in words")
    add_sampling(parser)
    args = parser.parse_args(argv)
    return ask(args.question, args.audio, args)


def ask(question: str, sounds: Sequence[pathlib.Path], args: argparse.Namespace) -> int:
    """Prints the answers; those about several sounds begin with the name of the file."""
    model = limited(open_model(args, slots=min(max(len(sounds), 1), _SLOTS)), args, ["text"])
    tell_of_words(model, [question])
    how = settings(args) | dict(seed=args.seed, return_exceptions=True)
    if not sounds:
        answers = model.generate([question], modality="text", **how)
    elif model.encoder is None:
        raise UserError(f"{args.model} was trained without an audio encoder (train.encoder); it can not listen.")
    else:
        answers = model.ask(list(sounds), question, **how)
    for index, answer in enumerate(answers):
        name = f"{sounds[index]}: " if len(sounds) > 1 else ""
        if isinstance(answer, UserError):
            print(f"ualm ask: {answer}", file=sys.stderr)
        else:
            print(f"{name}{answer}")
    return int(any(isinstance(answer, UserError) for answer in answers))
