"""`ualm generate`: sounds from captions, one or a file of them."""

import argparse
import io
import pathlib
import sys

from ualm_jax.cli.arguments import (
    Parser,
    input_directory,
    input_file,
    integer,
    local_path,
    number,
    output_directory,
    output_file,
    text,
)
from ualm_jax.cli.generation_arguments import (
    add_guidance,
    add_model,
    add_sampling,
    limited,
    open_model,
    settings,
    tell_of_speech,
    tell_of_words,
)
from ualm_jax.cli.generation_progress import Speed, progress
from ualm_jax.errors import UserError

_DESCRIPTION = """\
Makes a sound from a caption. The same seed gives the same sound; how it was made stands in the file and in FILE.json
beside it, and `ualm replay FILE` makes it again. With --candidates, the one that --scorer likes best.

  ualm generate --model soundscript "A low beep, then two claps." --out beep.wav
  ualm generate --model runs/tiny --prompt "Two clicks, then a low tone." --out two-clicks.wav
  ualm generate --model runs/tiny --prompt "Rain." --seconds 8 --out rain.flac --loudness lufs=-16 --plot
  ualm generate --model runs/tiny --prompt "A drum." --out drum.wav --candidates 8 --scorer likelihood

With --prompts, a sound for every line of a file, made side by side, into a folder; the same command goes on with a
half-done file. A line is a caption, or JSON: {"prompt": "Rain."} with any of "id", "seconds", "seed", "negative" and
"modality", or with "audio", a sound file to be asked about. OUT/results.jsonl has a line for each.

  ualm generate --model runs/tiny --prompts captions.txt --out sounds/ --format flac
  shuf -n 100 captions.txt | ualm generate --model runs/tiny --prompts - --out sounds/
"""

_UTF8 = dict(encoding="utf-8", errors="surrogateescape")  # a line that is no UTF-8 must not take the others along


def main(argv: list[str]) -> int:
    args = _parse(argv)
    if args.listen is not None:
        from ualm_jax.cli.ask import ask

        return ask(args.prompt, [args.listen], args)
    return _one(args) if args.prompts is None else _many(args)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser("ualm generate", description=_DESCRIPTION)
    add_model(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("given", nargs="?", type=text, metavar="TEXT", help="what to hear")
    asked.add_argument("--prompt", type=text, metavar="TEXT", help="the same")
    asked.add_argument("--prompts", type=_prompts, metavar="FILE", help="a prompt on each line; - is standard input")
    parser.add_argument("--out", metavar="FILE", help="what to make: .wav, .flac, .ogg or .mp3; of --prompts: a folder")
    parser.add_argument("--begin", type=input_file, metavar="FILE", help="a sound to go on from, for --seconds more")
    parser.add_argument("--listen", type=input_file, metavar="FILE", help="ask about this sound, as `ualm ask` does")
    parser.add_argument(
        "--modality", choices=("audio", "speech", "text", "auto"), default="audio", help="default %(default)s"
    )
    parser.add_argument(
        "--seconds",
        type=number(above=0, at_most=3600),
        help="exactly so long; default: until the model ends, 20 s at most",
    )
    add_sampling(parser)
    add_guidance(parser)
    best = parser.add_argument_group("best of several")
    best.add_argument("--candidates", type=integer(at_least=1, at_most=1024), default=1, metavar="N", help="default: 1")
    best.add_argument(
        "--scorer",
        metavar="NAME",
        help="says which is best: likelihood (default), soundscript, {clap,audiobox,judge}:DIR, module:function",
    )
    file = parser.add_argument_group("the file")
    file.add_argument("--format", choices=("wav", "flac", "ogg", "mp3"), help="of --prompts' sounds; default: wav")
    file.add_argument("--depth", choices=("16", "24", "float"), help="bits of a sample, of wav and flac; default: 16")
    file.add_argument("--loudness", metavar="X", help="peak=-1, rms=-20 or lufs=-16, in dB; default: as it was made")
    file.add_argument(
        "--enhance", type=input_directory, metavar="DIR", help="48 kHz stereo, by what `ualm enhance train` left"
    )
    file.add_argument("--plot", action="store_true", help="draw a spectrogram, FILE.png")
    parser.add_argument(
        "--slots",
        type=integer(at_least=1, at_most=4096),
        metavar="N",
        help="made at once; default: the candidates, of --prompts at least 8",
    )
    args = parser.parse_args(argv)
    args.prompt = args.prompt or args.given
    try:
        _check(parser, args)
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --out: {error}")
    if args.candidates > 1 and args.scorer is None:
        args.scorer = "likelihood"
    return args


def _check(parser: Parser, args: argparse.Namespace) -> None:
    """Refuses options that exclude each other, before anything is loaded."""
    from ualm_jax.audio.write import SUFFIXES, check_format
    from ualm_jax.generate.output import parse_loudness

    if args.listen is not None and args.prompt is None:
        parser.error("--listen takes one question, --prompt; a file of questions names its sounds itself")
    if args.prompts is None and (args.listen is not None or args.modality == "text"):
        why = "--listen" if args.listen is not None else "--modality text"
        names = ("out", "begin", "seconds", "negative", "scorer", "depth", "loudness", "enhance", "plot")
        sounds = [name for name in names if getattr(args, name)] + ["candidates"] * (args.candidates > 1)
        if sounds:
            parser.error(f"--{sounds[0]} is for sounds, and what {why} gives are words")
    if args.begin is not None and args.prompts is not None:
        parser.error("--begin is for one prompt; give --prompt")
    if args.format is not None and args.prompts is None:
        parser.error("--format is of --prompts' sounds; a single one has the format that --out names")
    args.format = args.format or "wav"
    if args.out is None and args.listen is None and (args.prompts is not None or args.modality != "text"):
        parser.error("--out is needed: what to make")
    if args.scorer is not None and args.candidates == 1:
        parser.error("--scorer chooses among several; give --candidates, such as 8")
    if args.out is not None:
        args.out = output_directory(args.out) if args.prompts is not None else output_file(*SUFFIXES)(args.out)
    try:
        if args.loudness is not None:
            parse_loudness(args.loudness)
        if args.out is not None:
            check_format(args.out if args.prompts is None else f"sound.{args.format}", args.depth)
    except UserError as error:
        parser.error(str(error))


def _prompts(value: str) -> pathlib.Path:
    return local_path(value) if value == "-" else input_file(value)


def _one(args: argparse.Namespace) -> int:
    from ualm_jax.generate.jobs import ranking
    from ualm_jax.generate.output import save_sound

    model = open_model(args, slots=args.slots or args.candidates)
    model = limited(model, args, [args.modality])
    how = settings(args) | dict(modality=args.modality, seconds=args.seconds, seed=args.seed)
    how["negative_prompt"] = args.negative
    if args.begin is not None:
        how["begin"] = args.begin
    _tell_of_length(model, args.seconds)
    tell_of_words(model, [args.prompt])
    if args.modality == "speech":
        tell_of_speech(model)
    speed = Speed(model.engine, _frame_rate(model))
    with progress(f"{args.candidates} candidates" if args.candidates > 1 else "generating", 1, speed):
        if args.candidates > 1:
            (ranked,) = model.best_of([args.prompt], args.candidates, args.scorer, **how)
            answer, more = ranked[0].clip, {"candidates": ranking(ranked)}
        else:
            ((_, answer),) = model.run([model.prompt(args.prompt, **how)])
            if isinstance(answer, UserError):
                raise answer
            ranked, more = None, {}
        how_fast = str(speed)  # without what writing the file takes
    if answer.modality == "text":
        print(answer.text)
        return 0
    file = dict(depth=args.depth, loudness=args.loudness, plot=args.plot)
    gain = save_sound(args.out, *answer.sound, answer.record(), more=more, **file)
    turned = "" if gain == 1 else f", {'turned down' if gain < 1 else 'turned up'} to {gain:.3f}"
    print(f"{args.out}: {answer.seconds:.2f} s from step {model.step}, seed {answer.seed}{turned} ({how_fast})")
    for place, each in enumerate(ranked or [], start=1):
        print(f"  {place}. seed {each.clip.seed}: {each.score.problem or format(each.score.value, '.4f')}")
    return 0


def _many(args: argparse.Namespace) -> int:
    from ualm_jax.generate.jobs import Job, run_job
    from ualm_jax.generate.jobs_items import read_items
    from ualm_jax.generate.results import RESULTS
    from ualm_jax.generate.scorers import load_scorer

    if args.negative is not None:
        raise UserError("--negative is for --prompt; in a file it stands in its line, as JSON.")
    if args.prompts == pathlib.Path("-"):
        items = read_items(io.TextIOWrapper(sys.stdin.buffer, **_UTF8), "standard input")
    else:
        with open(args.prompts, **_UTF8) as lines:
            items = read_items(lines, str(args.prompts))
    model = open_model(args, slots=args.slots or max(8, args.candidates))
    model = limited(model, args, [item.kind(args.modality) for item in items])
    file = dict(suffix=f".{args.format}", depth=args.depth, loudness=args.loudness, plot=args.plot)
    drawn = dict(modality=args.modality, seconds=args.seconds, seed=args.seed, settings=settings(args))
    job = Job(**drawn, candidates=args.candidates, scorer=args.scorer, **file)
    scorer = None if args.scorer is None else load_scorer(args.scorer, model)
    _tell_of_length(model, args.seconds)
    tell_of_words(model, [item.prompt for item in items])
    if "speech" in {item.kind(args.modality) for item in items}:
        tell_of_speech(model)
    speed = Speed(model.engine, _frame_rate(model))
    try:
        with progress(str(args.prompts), len(items), speed) as advance:
            lines = run_job(model, items, job, args.out, scorer=scorer, told=lambda line: advance())
    except KeyboardInterrupt:
        print(f"{args.out}: not done yet; the same command goes on from what is finished", file=sys.stderr)
        raise
    failed = [line for line in lines if "error" in line]
    print(f"{args.out / RESULTS}: {len(lines) - len(failed)} of {len(lines)} answers ({speed})")
    for line in failed[:3]:
        print(f"  {line['id']}: {line['error']}", file=sys.stderr)
    if failed:
        more = f", the first {min(3, len(failed))} of which are above" if len(failed) > 3 else ""
        print(f"ualm generate: {len(failed)} of {len(lines)} could not be answered{more}", file=sys.stderr)
    return 1 if failed else 0


def _frame_rate(model) -> float:
    return 50.0 if model.codec is None else model.codec.frame_rate


def _tell_of_length(model, seconds: float | None) -> None:
    if seconds is not None and model.codec is not None and seconds * model.codec.frame_rate > model.window:
        print(
            f"{seconds:g} s are more than the {model.window} positions that this model knows "
            f"({model.window / model.codec.frame_rate:.0f} s): it will forget how the sound began.",
            file=sys.stderr,
        )
