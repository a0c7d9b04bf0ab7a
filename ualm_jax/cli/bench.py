"""`ualm bench PART`: how fast the parts are on this machine."""

import importlib
import json

from ualm_jax.cli import bench_arguments
from ualm_jax.cli.arguments import Parser, output_directory, output_file

_DESCRIPTION = """\
Times a part of the system on this machine: warm-up, several rounds, medians with their spread, and what the machine
itself could do. With --against torch the same work runs in PyTorch, in turn, in the same process.

  ualm bench train --size tiny --against torch
  ualm bench decode --size 1.5b --dtype bfloat16 --batch 1 8 64 --json decode.json --png decode.png
"""

PARTS = {
    "train": ("ualm_jax.bench.train", "one training step: tokens per second, MFU, memory, time to compile"),
    "decode": ("ualm_jax.bench.decode", "guided generation of sound: steps per second, share of the bandwidth floor"),
    "serve": ("ualm_jax.bench.serve", "sound for many at once: time to the first of it, underruns, slots kept busy"),
    "attention": ("ualm_jax.bench.attention", "every attention backend this device has, on packed documents"),
    "loss": ("ualm_jax.bench.loss", "the loss of all streams beside plain logits: time and memory"),
    "data": ("ualm_jax.bench.data", "the loader from disk: rows per second, memory, and a step beside it"),
    "codec": ("ualm_jax.bench.codec", "X-codec at full size, random weights, float32"),
}
"""Part -> module and what it times. The module has `run(args) -> BenchResult`; `bench_arguments` has its options."""


def main(argv: list[str]) -> int:
    parser = Parser("ualm bench", description=_DESCRIPTION)
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name, (_, text) in PARTS.items():
        part = parts.add_parser(name, help=text, description=f"Times {text}.")
        part.add_argument("--json", type=output_file(), metavar="FILE", help="write every figure")
        part.add_argument("--png", type=output_file(".png"), metavar="FILE", help="draw the figures")
        if name != "data":  # whose work is not on a device
            part.add_argument("--profile", type=output_directory, metavar="DIR", help="trace three more runs for xprof")
        getattr(bench_arguments, name)(part)
    args = parser.parse_args(argv)

    result = importlib.import_module(PARTS[args.part][0]).run(args)

    from ualm_jax.bench import machine, picture

    facts = machine.facts()
    print(f"\n{result.title}\n{', '.join(f'{name} {value}' for name, value in facts.items())}\n\n{result.table()}\n")
    for note in result.notes:
        print(f"- {note}")
    if args.json is not None:
        outputs = {"part", "json", "png", "profile"}
        asked = {name: value for name, value in vars(args).items() if name not in outputs}
        report = {"part": args.part, "arguments": asked, "title": result.title, "machine": facts}
        report |= {"rows": list(result.rows), "notes": list(result.notes)}
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    if args.png is not None:
        picture.draw(result, args.png)
    if getattr(args, "profile", None) is not None:
        import jax

        with jax.profiler.trace(args.profile):
            for _ in range(3):
                result.again()
        print(f"- trace of three runs: xprof --logdir {args.profile}")
    return 0
