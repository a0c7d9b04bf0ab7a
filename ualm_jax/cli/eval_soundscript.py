"""`ualm eval soundscript`: judges whether a system makes what captions ask for."""

import argparse
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

_DESCRIPTION = """\
Judges sounds of the benchmark's fixed captions: which kinds of events, how many, in which order, at which pitch, how
long, how far apart, how loud. A program hears them, by rules; it is validated first on the original sounds, on what a
codec leaves of them (--codec) and on shuffled captions, and the report says so. Writes OUT/report.html, OUT/report.json
and, of a model or command, OUT/wavs; killed, the same command continues. docs/soundscript.md tells how to judge others.

  ualm eval soundscript --originals --out eval/originals
  ualm eval soundscript --wavs my-system/ --name "my system" --out eval/mine
  ualm eval soundscript --command 'python say.py --text {caption} --wav {out}' --out eval/say
  ualm eval soundscript --model runs/script --codec codecs/script --cfg-scale 1.5 --out eval/script
  ualm eval soundscript --captions captions.jsonl
"""


def main(argv: list[str]) -> int:
    from ualm_jax.cli.arguments import Parser, input_directory, integer, model_directory, number

    parser = Parser("ualm eval soundscript", description=_DESCRIPTION)
    system = parser.add_mutually_exclusive_group(required=True)
    system.add_argument("--wavs", type=input_directory, metavar="DIR", help="sounds named by id, such as fresh-017.wav")
    system.add_argument("--command", metavar="CMD", help="makes one sound: {caption}, {id} and {out} are filled in")
    system.add_argument("--model", type=model_directory, metavar="DIR", help="a run, or what `ualm convert` made")
    system.add_argument("--originals", action="store_true", help="the sounds the captions were written for")
    system.add_argument("--captions", type=pathlib.Path, metavar="FILE", help="only write ids and captions, as JSONL")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="where the report goes")
    parser.add_argument("--name", help="of the system, for the report; default: what is judged")
    parser.add_argument("--codec", type=model_directory, metavar="DIR", help="measure what this codec leaves right")
    parser.add_argument(
        "--lists", nargs="+", metavar="LIST", help="of seen, fresh, combination, phrasing; default: all four"
    )
    parser.add_argument("--limit", type=integer(at_least=2), metavar="N", help="items of each list; default: all, 256")
    parser.add_argument("--max-seconds", type=number(above=0), default=4.0, metavar="S", help="only shorter sounds")
    sampling = parser.add_argument_group("of --model")
    sampling.add_argument("--step", type=integer(at_least=0), metavar="N", help="of a run; default: its newest")
    sampling.add_argument("--cfg-scale", type=number(at_least=0), default=1.5, help="guidance (default %(default)s)")
    sampling.add_argument("--temperature", type=number(at_least=0), default=0.8, help="default %(default)s")
    sampling.add_argument("--top-k", type=integer(at_least=0), default=20, help="default %(default)s")
    sampling.add_argument("--seed", type=integer(at_least=0), default=0, help="default %(default)s")
    sampling.add_argument("--batch-size", type=integer(at_least=1), default=32, help="default %(default)s")
    args = parser.parse_args(argv)

    from ualm_jax.errors import UserError
    from ualm_jax.evaluate.soundscript.benchmark import LISTS, items

    chosen = items(tuple(args.lists or LISTS), args.limit, args.max_seconds)
    if args.captions is not None:
        lines = [json.dumps({"id": item.id, "caption": item.caption}) + "\n" for item in chosen]
        args.captions.write_text("".join(lines))
        print(f"{args.captions}: {len(chosen)} captions")
        return 0
    if args.out is None:
        raise UserError("--out DIR is needed: where the report shall go.")
    _judge(args, chosen)
    return 0


def _judge(args: argparse.Namespace, chosen: list) -> None:
    from ualm_jax.evaluate.soundscript.report import to_html, to_json
    from ualm_jax.evaluate.soundscript.run import by_list, floor, judge_sounds, originals
    from ualm_jax.evaluate.soundscript.tally import tally

    wavs = args.out / "wavs"
    sounds, made = (None, {}) if args.originals else _sounds(args, wavs, chosen)
    codec = None if args.codec is None else _codec(args)
    name = _settle(args, wavs, made)
    reference = originals(chosen)
    tables = {
        "original sounds (ceiling)": tally([each.verdict for each in reference]),
        "shuffled captions (floor)": floor(reference),
    }
    if codec is not None:
        from ualm_jax.evaluate.soundscript.model_sounds import through_codec

        decoded = judge_sounds(chosen, through_codec(codec, chosen))
        tables["codec (ceiling)"] = tally([each.verdict for each in decoded])
    judged = reference if sounds is None else judge_sounds(chosen, sounds)
    tables |= by_list(judged)
    (args.out / "report.html").write_text(to_html(name, tables, judged))
    (args.out / "report.json").write_text(json.dumps(to_json(name, tables, judged), indent=1) + "\n")
    for title, table in tables.items():
        tracks = ", ".join(f"{track} {100 * share.value:.0f}" for track, share in table.tracks.items())
        print(f"{title:26} {table.all}   {tracks}")
    print(args.out / "report.html")


def _settle(args: argparse.Namespace, wavs: pathlib.Path, made: dict[str, Any]) -> str:
    """Makes the folders, and makes sure that sounds in them are of the same system. The name of the system."""
    from ualm_jax.errors import UserError

    made = json.loads(json.dumps(made, default=os.fspath))
    wavs.mkdir(parents=True, exist_ok=True) if made else args.out.mkdir(parents=True, exist_ok=True)
    record = args.out / "made.json"
    if made and record.is_file() and json.loads(record.read_text()) != made:
        raise UserError(f"{args.out}: holds sounds that were made in another way ({record}); choose another --out.")
    if made:
        record.write_text(json.dumps(made, indent=1) + "\n")
    if args.model is not None and args.name is None:
        return f"{made['model']}, guidance {args.cfg_scale:g}, temperature {args.temperature:g}, top {args.top_k}"
    return args.name or args.command or ("originals" if args.wavs is None else os.fspath(args.wavs))


def _sounds(args: argparse.Namespace, wavs: pathlib.Path, chosen: list) -> tuple[Iterator, dict[str, Any]]:
    """The system's sounds, and what they are made with where they are made here. What a model needs has been read when
    this returns."""
    from ualm_jax.evaluate.soundscript.systems import from_command, from_folder

    if args.wavs is not None:
        return from_folder(args.wavs, chosen), {}
    if args.command is not None:
        return from_command(args.command, wavs, chosen), {"command": args.command}
    return _model_sounds(args, wavs, chosen)


def _model_sounds(args: argparse.Namespace, wavs: pathlib.Path, chosen: list) -> tuple[Iterator, dict[str, Any]]:
    from ualm_jax.parallel.startup import start

    start()

    import jax

    from ualm_jax.evaluate.soundscript.model_sounds import from_model
    from ualm_jax.generate.sampling import SamplingParams
    from ualm_jax.pretrained import load

    run = load(args.model, step=args.step)
    model, codec, tokenizer = (_part(run, name) for name in ("model", "codec", "tokenizer"))
    sampling = {name: getattr(args, name) for name in ("temperature", "top_k", "cfg_scale", "seed")}
    params = SamplingParams(**sampling, max_frames=round(_LONGEST * codec.frame_rate))

    def make():
        with jax.set_mesh(run.mesh):
            yield from from_model(model, codec, tokenizer, params, wavs, chosen, args.batch_size)

    made = {"model": args.model.name if run.language else args.model, "weights": run.made_by.weights}
    return make(), made | sampling | {name: getattr(args, name) for name in ("batch_size", "limit", "lists")}


def _codec(args: argparse.Namespace):
    from ualm_jax.parallel.startup import start
    from ualm_jax.pretrained import load

    start()
    return _part(load(args.codec), "codec")


_LONGEST = 4.5  # seconds; no scene is longer than 4


def _part(loaded, name: str):
    from ualm_jax.errors import UserError

    if getattr(loaded, name) is None:
        raise UserError(f"{loaded.path} holds no {name}.")
    return getattr(loaded, name)
