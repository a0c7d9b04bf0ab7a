"""`ualm codec train`: a codec from a config file."""

from ualm_jax.cli.arguments import Parser, add_device_arguments, output_directory
from ualm_jax.errors import STOPPED

_DESCRIPTION = """\
Trains a codec. The work folder receives checkpoints, metrics.jsonl, TensorBoard files and the codec itself, as a
folder that `ualm data encode --codec` and `transformers` open. If it holds a checkpoint, the run goes on from there,
bit for bit. Ctrl-C and SIGTERM save first.

  ualm codec train --config configs/codec_small.py --workdir runs/codec
  ualm codec train --config configs/codec_small.py --workdir runs/codec --config.data.folder=sounds/
"""


def main(argv: list[str]) -> int:
    parser = Parser(
        "ualm codec train",
        description=_DESCRIPTION,
        epilog="Any field of the config can be overridden: --config.train.steps=50 --config.data.batch_size=8",
        overrides=True,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/codec_small.py")
    parser.add_argument("--workdir", required=True, type=output_directory, metavar="DIR", help="where the run lives")
    add_device_arguments(parser, distributed=False)
    args, overrides = parser.parse_with_overrides(argv)

    from ualm_jax.cli.config_file import load_config
    from ualm_jax.mapping import from_mapping
    from ualm_jax.parallel.startup import start
    from ualm_jax.train.codec_config import CodecRunConfig

    config = from_mapping(CodecRunConfig, load_config(args.config, overrides).to_dict())
    start(cpu_devices=args.devices)

    from ualm_jax.train.codec import train_codec

    return 0 if train_codec(config, args.workdir) >= config.train.steps else STOPPED
