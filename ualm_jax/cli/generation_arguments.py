"""Options that `ualm generate`, `ask`, `chat` and `reason` share, and what they say of a model beforehand."""

import argparse
import contextlib
import sys
from collections.abc import Iterable
from typing import Any

from ualm_jax.cli.arguments import Parser, integer, model_directory, number, text
from ualm_jax.errors import UserError

_SETTINGS = ("cfg_scale", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens")


def add_model(parser: Parser) -> None:
    parser.add_argument(
        "--model",
        "--workdir",
        dest="model",
        required=True,
        type=model_directory,
        metavar="DIR",
        help="the --workdir of `ualm train`, what `ualm convert` made, a Hugging Face folder, or soundscript, the "
        "small model that comes with the package",
    )
    parser.add_argument("--step", type=integer(at_least=0), metavar="N", help="of a run; default: its newest")
    parser.add_argument("--int8", action="store_true", help="layers with 8-bit weights: half the memory, less exact")


def add_sampling(parser: Parser) -> None:
    group = parser.add_argument_group("how it is drawn (defaults of audio: what the model recommends, if it does)")
    group.add_argument("--seed", type=integer(at_least=0, at_most=2**32 - 1), default=0, help="default %(default)s")
    group.add_argument(
        "--temperature", type=number(at_least=0, at_most=100), metavar="T", help="0 is greedy; default: 0.8, of texts 0"
    )
    group.add_argument(
        "--top-k", type=integer(at_least=0, at_most=2**31 - 1), metavar="K", help="0 is all; default: 20"
    )
    group.add_argument("--top-p", type=number(above=0, at_most=1), metavar="P", help="default: 1, which is all")
    group.add_argument("--min-p", type=number(at_least=0, at_most=1), metavar="P", help="default: 0, which is all")
    group.add_argument(
        "--repetition-penalty",
        type=number(above=0, at_most=100),
        metavar="X",
        help="of a text: above 1, what it holds already becomes less likely; default: 1",
    )
    group.add_argument(
        "--max-tokens", type=integer(at_least=1, at_most=2**20), metavar="N", help="of a text; default: 1024"
    )


def add_guidance(parser: Parser) -> None:
    group = parser.add_argument_group("guidance of audio (default: what the model recommends, if it does)")
    group.add_argument("--cfg-scale", type=number(at_least=0, at_most=100), metavar="X", help="1 is none; default: 3")
    group.add_argument("--negative", type=text, metavar="TEXT", help="what to lead away from, instead of nothing")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Those of the options above that were given, by the names of `SamplingParams`."""
    given = {name: getattr(args, name, None) for name in _SETTINGS}
    return {name: value for name, value in given.items() if value is not None}


def limited(model, args: argparse.Namespace, modalities: Iterable[str]):
    """The model for answers of these modalities alone, drawn as the options above say."""
    from ualm_jax.generate.work import work_of

    asked = []
    for each in set(modalities):
        with contextlib.suppress(UserError):  # what can not be sampled is told when its turn comes
            asked.append((each, model.sampling(each, None, settings(args)), False))
    return model.limited(work_of(asked)) if asked else model


def tell_of_words(model, texts: Iterable[str]) -> None:
    """Once, which words a model of a small language has never seen."""
    if model.language != "soundscript-2":
        return
    from ualm_jax.data.raw.soundscript.words import unknown_words

    if never := unknown_words(" ".join(texts)):
        shown = ", ".join(word if len(word) <= 30 else f"{word[:30]}..." for word in never[:8])
        print(
            f"{model.path.name} knows only captions of SoundScript (docs/soundscript.md) and never saw: "
            f"{shown}{', ...' * (len(never) > 8)}; what it makes of them means nothing.",
            file=sys.stderr,
        )


def tell_of_speech(model) -> None:
    """For those who ask for speech: that the model knows none, where that is known."""
    if model.speech is False:
        print(
            f"{model.path.name} was trained without speech: what it makes when asked for it means nothing.",
            file=sys.stderr,
        )


def open_model(args: argparse.Namespace, **how: Any):
    """What --model holds, by `ualm_jax.load`."""
    from ualm_jax.parallel.startup import start

    start()

    from ualm_jax.pretrained import load

    if getattr(args, "enhance", None) is not None:
        how["enhance"] = args.enhance
    return load(args.model, step=args.step, int8=args.int8, **how)
