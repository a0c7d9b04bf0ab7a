"""`ualm data encode`: encodes the sounds of a dataset, on every device of every host."""

import pathlib

from ualm_jax.cli.arguments import Parser, add_device_arguments, output_directory

_DESCRIPTION = """\
Takes a dataset that `ualm data prepare --sounds-only` made, encodes its sounds with the codec, in float32, and writes
the dataset that training reads. Clips are padded to fixed shapes, and codes depend on the clip alone. Killed
at any moment, the same command goes on where it was.

  ualm data encode /data/sounds --codec /models/xcodec --out /data/tokens

Several hosts share the work when the command runs once on each, with --distributed and the same folders, which all of
them must see; each encodes its share of the shards, and the first puts the dataset together.

  srun ualm data encode /data/sounds --codec /models/xcodec --out /data/tokens --distributed
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm data encode", description=_DESCRIPTION)
    parser.add_argument("sounds", type=pathlib.Path, metavar="DATASET", help="made by `data prepare --sounds-only`")
    parser.add_argument("--codec", required=True, type=pathlib.Path, metavar="DIR", help="X-codec as HF stores it")
    parser.add_argument("--out", required=True, type=output_directory, metavar="DIR", help="the dataset folder to make")
    add_device_arguments(parser)
    args = parser.parse_args(argv)

    from ualm_jax.parallel.startup import start

    start(distributed=args.distributed, cpu_devices=args.devices)

    import jax
    from rich.console import Console

    from ualm_jax.cli.data_prepare import print_summary
    from ualm_jax.data.prepare.encode_audio import encode_audio

    info = encode_audio(args.sounds, codec_dir=args.codec, out=args.out, console=Console())
    if jax.process_index() == 0:
        print_summary(info, tuple(info.made_from["filters"]["drop"]))
    return 0
