"""`ualm bench PART`: how fast the parts are on this machine."""

import importlib
import json
import pathlib

from ualm_jax.cli import bench_arguments
from ualm_jax.cli.arguments import Parser, output_directory, output_file
from ualm_jax.mapping import to_mapping

_DESCRIPTION = """\
Times a part of the system on this machine: warm-up, several rounds, medians with their spread, and what the machine
itself could do. With --against torch the same work runs in PyTorch, in turn, in the same process. `ualm bench card`
runs the parts that matter most on a card.

  ualm bench train --size tiny --against torch
  ualm bench decode --size 1.5b --dtype bfloat16 --batch 1 8 64 --json decode.json --png decode.png
"""

PARTS = {
    "machine": ("ualm_jax.bench.floors", "the best matrix product and the best copy of a device"),
    "train": ("ualm_jax.bench.train", "one training step: tokens per second, MFU, memory, time to compile"),
    "decode": ("ualm_jax.bench.decode", "guided generation of sound: steps per second, share of the bandwidth floor"),
    "serve": ("ualm_jax.bench.serve", "sound for many at once: time to the first of it, underruns, slots kept busy"),
    "attention": ("ualm_jax.bench.attention", "every attention backend this device has, on packed documents"),
    "loss": ("ualm_jax.bench.loss", "the loss of all streams beside plain logits: time and memory"),
    "data": ("ualm_jax.bench.data", "the loader from disk: rows per second, memory, and a step beside it"),
    "codec": (
        "ualm_jax.bench.codec",
        "X-codec at full size, random weights, float32; --training: a codec's training steps",
    ),
    "end-to-end": ("ualm_jax.bench.end_to_end", "data, training with a stop, and a sound, as commands"),
}
"""Part -> module and what it times. The module has `run(args) -> BenchResult`; `bench_arguments` has its options."""

_UNTRACED = ("machine", "data", "end-to-end")  # whose work is not one program on a device
_TRACED_RUNS = 3


def main(argv: list[str]) -> int:
    parser = Parser("ualm bench", description=_DESCRIPTION)
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name, (_, text) in PARTS.items():
        part = parts.add_parser(name, help=text, description=f"Times {text}.")
        part.add_argument("--json", type=output_file(), metavar="FILE", help="write every figure")
        part.add_argument("--png", type=output_file(".png"), metavar="FILE", help="draw the figures")
        if name not in _UNTRACED:
            part.add_argument("--profile", type=output_directory, metavar="DIR", help="trace three more runs for xprof")
        getattr(bench_arguments, name.replace("-", "_"))(part)
    args = parser.parse_args(argv)

    result = importlib.import_module(PARTS[args.part][0]).run(args)

    from ualm_jax.bench import machine, picture

    facts = machine.facts()
    print(f"\n{result.title}\n{', '.join(f'{name} {value}' for name, value in facts.items())}\n\n{result.table()}\n")
    for note in result.notes:
        print(f"- {note}", flush=True)
    outputs = {"part", "json", "png", "profile"}
    asked = {name: value for name, value in vars(args).items() if name not in outputs}
    report = {"part": args.part, "arguments": asked, "title": result.title, "machine": facts}
    report |= {"rows": list(result.rows), "notes": list(result.notes), "table": result.table()}
    report["bars"] = [{"title": bars.title, "values": dict(bars.values)} for bars in result.bars]
    if args.json is not None:
        _write(args.json, report)
    if args.png is not None:
        picture.draw(result.title, result.bars, args.png)
    if getattr(args, "profile", None) is not None:
        import jax

        from ualm_jax.bench import trace

        with jax.profiler.trace(args.profile):
            for _ in range(_TRACED_RUNS):
                result.again()
        report["trace"] = trace.summary(args.profile, _TRACED_RUNS)
        print(f"- trace of {_TRACED_RUNS} runs: xprof --logdir {args.profile}; of one run:\n")
        print(trace.table(report["trace"]))
        if args.json is not None:
            _write(args.json, report)
    return 0


def _write(path: pathlib.Path, report: dict) -> None:
    path.write_text(json.dumps(report, indent=2, default=to_mapping) + "\n")
