"""`ualm bench`: how fast the parts are on this machine."""

import argparse
import json
import pathlib

_DESCRIPTION = """\
Times a part of the system on this machine: warm-up, several rounds, medians with their spread, and the ratio to PyTorch
in the same run.

  ualm bench codec --against torch
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ualm bench", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("codec",), help="X-codec at full size, random weights, float32")
    parser.add_argument("--against", choices=("torch",), help="the same work in PyTorch, in turn")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip (default %(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="clips at once (default 1 8)")
    parser.add_argument("--repeats", type=int, default=5, help="counted rounds (default %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures")
    args = parser.parse_args(argv)

    import jax
    from rich.console import Console
    from rich.table import Table

    from ualm_jax.bench.codec import bench_codec

    rows = bench_codec(
        seconds=args.seconds, batches=tuple(args.batch), repeats=args.repeats, against_torch=args.against == "torch"
    )
    device = jax.devices()[0].device_kind
    table = Table(title=f"X-codec, {args.seconds:g} s clips, on {device}, jax {jax.__version__}")
    for column in ("work", "batch", "median s", "min to max", "audio s/s", "torch median s", "min to max", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        cells = [row["work"], str(row["batch"]), *_seconds(row["ours"]), f"{row['audio_per_second']:.1f}"]
        if "torch" in row:
            cells += [*_seconds(row["torch"]), f"{row['ratio']:.2f}"]
        table.add_row(*cells)
    Console().print(table)
    if args.json is not None:
        versions = {"device": device, "jax": jax.__version__}
        args.json.write_text(json.dumps({**versions, "seconds": args.seconds, "rows": rows}, indent=2) + "\n")
    return 0


def _seconds(timing: dict[str, float]) -> tuple[str, str]:
    return f"{timing['median']:.3f}", f"{timing['min']:.3f} to {timing['max']:.3f}"
