"""`ualm convert`: foreign weights in, foreign weights out, and the proof that nothing was lost."""

import argparse
import pathlib
import resource
import time
from collections.abc import Callable
from typing import Any

from ualm_jax.buckets import here, in_bucket
from ualm_jax.cli.arguments import (
    Parser,
    input_directory,
    integer,
    local_path,
    model_directory,
    number,
    output_directory,
)
from ualm_jax.errors import UserError
from ualm_jax.outputs import check_new_folder

_DESCRIPTION = """\
Turns foreign weights into a checkpoint that training, generation and `ualm_jax.load` begin with, and back.

  ualm convert qwen2 Qwen2.5-1.5B --out weights/base --codec xcodec-hubert-general
  ualm convert verify Qwen2.5-1.5B weights/base
  ualm convert export hf runs/stage1 --out exported --vocabulary extended
  ualm convert export ours runs/stage1 --out slim --dtype bfloat16

A checkpoint is written beside and renamed when it is whole. README.md and ualm.json in it say what it is.
"""


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)

    from ualm_jax.parallel.startup import start

    start(cpu_devices=1)  # tensors pass through the host only, whatever accelerators there are
    return args.run(args)


def _parser() -> Parser:
    parser = Parser("ualm convert", description=_DESCRIPTION)
    verbs = parser.add_subparsers(required=True, metavar="FORMAT")

    qwen2 = _importer(verbs, "qwen2", "a Qwen2 / Qwen2.5 text model; its vocabulary is extended", _qwen2)
    qwen2.add_argument("--codec", type=input_directory, metavar="DIR", help="X-codec to lay beside it; sets codebooks")
    qwen2.add_argument("--encoder", type=input_directory, metavar="DIR", help="audio encoder to lay beside it")
    qwen2.add_argument("--tokenizer", type=input_directory, metavar="DIR", help="default: the one in SRC")
    count, default = integer(at_least=1), "(default %(default)s)"
    qwen2.add_argument("--codebook-size", type=count, default=1024, help=f"without --codec {default}")
    qwen2.add_argument("--num-codebooks", type=count, default=8, help=f"without --codec {default}")
    qwen2.add_argument("--seed", type=integer(at_least=0), default=0, help=f"of the new rows {default}")
    qwen2.add_argument("--std", type=number(at_least=0), default=0.02, help=f"of the new rows {default}")

    reference = _importer(verbs, "ualm-reference", "a checkpoint of the UALM reference (DeepSpeed)", _reference)
    reference.add_argument("--base", type=input_directory, required=True, metavar="DIR", help="the Qwen2 it began with")
    reference.add_argument("--codec", type=input_directory, metavar="DIR", help="the X-codec it was trained with")
    reference.add_argument(
        "--encoder", type=input_directory, metavar="DIR", help="the audio encoder it was trained with"
    )

    _importer(verbs, "xcodec", "an X-codec", _xcodec)
    _importer(verbs, "omni-audio", "the audio tower of Qwen2.5-Omni, out of the whole model", _encoder("omni-audio"))
    _importer(verbs, "af-whisper", "the audio tower of Audio Flamingo 3", _encoder("af-whisper"))

    export = verbs.add_parser("export", help="to a foreign format, or ours without optimiser, from a run or converted")
    export.add_argument("format", choices=("hf", "ours", "peft", "ualm-reference", "xcodec"))
    _paths(export, "converted checkpoint or --workdir of a run; may be gs://BUCKET/PATH", model_directory)
    export.add_argument(
        "--step", type=integer(at_least=0), metavar="N", help="of a run; default: its newest checkpoint"
    )
    export.add_argument(
        "--vocabulary",
        choices=("text", "extended"),
        default="text",
        help=f"hf: text rows only, or all of them and vocabulary.json {default}",
    )
    export.add_argument(
        "--shard-gb", type=number(above=0), default=2.0, metavar="GB", help=f"hf: largest file {default}"
    )
    export.add_argument("--codec", type=input_directory, metavar="DIR", help="ualm-reference: X-codec to put in")
    export.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="ours: round all arrays to it (default: as they are)"
    )
    export.set_defaults(run=_export)

    verify = verbs.add_parser("verify", help="compare a conversion with its source; exit status 1 if it fails")
    verify.add_argument("source", type=_there, metavar="SRC")
    verify.add_argument("converted", type=input_directory, metavar="CONVERTED")
    verify.add_argument(
        "--base", type=input_directory, metavar="DIR", help="ualm-reference: the Qwen2 it began with, to compare sizes"
    )
    verify.add_argument("--tensors-only", action="store_true", help="do not run the two models")
    verify.set_defaults(run=_verify)
    return parser


def _importer(verbs, name: str, text: str, run) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=f"Reads {text}.")
    _paths(parser, "local directory", _there)
    parser.set_defaults(run=run)
    return parser


def _paths(parser: argparse.ArgumentParser, source: str, kind: Callable[[str], Any]) -> None:
    parser.add_argument("source", type=kind, metavar="SRC", help=source)
    parser.add_argument("--out", required=True, type=_new_directory, metavar="DIR", help="the folder to make")


def _there(value: str) -> pathlib.Path:
    path = local_path(value)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no {path}")
    return path


def _new_directory(value: str) -> pathlib.Path:
    """Type of a folder to make: checked before weights are read."""
    path = output_directory(value)
    try:
        check_new_folder(path)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def _qwen2(args: argparse.Namespace) -> int:
    from ualm_jax.convert_weights.qwen2 import import_qwen2
    from ualm_jax.weights.hf_qwen2 import Extension

    extension = Extension(args.codebook_size, args.num_codebooks, args.seed, args.std)
    return _timed(
        args.out,
        lambda progress: import_qwen2(
            args.source,
            args.out,
            codec=args.codec,
            encoder=args.encoder,
            tokenizer=args.tokenizer,
            extension=extension,
            progress=progress,
        ),
    )


def _reference(args: argparse.Namespace) -> int:
    from ualm_jax.convert_weights.ualm_reference import import_reference

    return _timed(
        args.out,
        lambda progress: import_reference(
            args.source, args.out, base=args.base, codec=args.codec, encoder=args.encoder, progress=progress
        ),
    )


def _xcodec(args: argparse.Namespace) -> int:
    from ualm_jax.convert_weights.codec_and_encoder import import_xcodec

    return _timed(args.out, lambda progress: import_xcodec(args.source, args.out, progress=progress))


def _encoder(importer: str):
    def run(args: argparse.Namespace) -> int:
        from ualm_jax.convert_weights.codec_and_encoder import import_encoder

        return _timed(args.out, lambda progress: import_encoder(importer, args.source, args.out, progress=progress))

    return run


def _export(args: argparse.Namespace) -> int:
    from ualm_jax.convert_weights.codec_and_encoder import export_xcodec
    from ualm_jax.convert_weights.ours import export_ours
    from ualm_jax.convert_weights.qwen2 import export_hf, export_peft
    from ualm_jax.convert_weights.ualm_reference import export_reference
    from ualm_jax.weights.opener import open_weights

    if args.format == "xcodec":
        source = here(args.source / "codec") if in_bucket(args.source) else args.source
        return _timed(args.out, lambda progress: export_xcodec(source, args.out))
    weights = open_weights(args.source, args.step)
    if args.format == "ours":
        return _timed(args.out, lambda progress: export_ours(weights, args.out, dtype=args.dtype, progress=progress))
    if args.format == "peft":
        return _timed(args.out, lambda progress: export_peft(weights, args.out))
    if args.format == "ualm-reference":
        return _timed(
            args.out, lambda progress: export_reference(weights, args.out, codec=args.codec, progress=progress)
        )
    shard_bytes = int(args.shard_gb * 1e9)
    return _timed(
        args.out,
        lambda progress: export_hf(
            weights, args.out, vocabulary=args.vocabulary, shard_bytes=shard_bytes, progress=progress
        ),
    )


def _verify(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from ualm_jax.convert_weights.verify import verify

    report = verify(args.source, args.converted, base=args.base, run=not args.tensors_only)
    console = Console(soft_wrap=True)
    console.print(f"{report.tensors} tensors, {report.size / 1e9:.3f} GB: ", end="")
    console.print("every one equal byte by byte, none missing, none unused" if not report.problems else "they differ")
    for problem in report.problems:
        console.print(f"  {problem}", markup=False)
    if report.rows:
        table = Table("on the same random input, float32", "value", "limit", "")
        for row in report.rows:
            limit = "" if row.limit is None else f"{row.limit:g}"
            table.add_row(row.name, f"{row.value:.3g}", limit, "ok" if row.passed else "FAIL")
        console.print(table)
    if report.skipped:
        console.print(f"Models {report.skipped}.")
    console.print("PASS" if report.passed else "FAIL")
    return 0 if report.passed else 1


def _timed(out: pathlib.Path, convert) -> int:
    """Runs `convert` under a progress bar, then says how much came how fast, and what memory it took."""
    from rich.console import Console

    from ualm_jax.progress import Bar

    start = time.perf_counter()
    with Bar(out.name, _gigabytes, 0, console=Console(stderr=True)) as bar:
        size = convert(lambda done, total: bar.update(done, total=total))
    seconds = time.perf_counter() - start
    size, peak = size / 1e9, _peak_memory() / 1e9
    print(f"{out}: {size:.3f} GB in {seconds:.1f} s ({size / seconds:.2f} GB/s), peak memory {peak:.2f} GB")
    return 0


def _gigabytes(done: int, total: int) -> str:
    return f"{done / 1e9:.2f} of {total / 1e9:.2f} GB" if total else ""


def _peak_memory() -> int:
    """Bytes this process has held at most, files mapped into memory included."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # rusage would count what the parent held when it started us
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
