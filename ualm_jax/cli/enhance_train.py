"""`ualm enhance train`: an enhancer from a config file."""

from ualm_jax.cli.arguments import Parser, add_device_arguments, output_directory
from ualm_jax.errors import STOPPED

_DESCRIPTION = """\
Trains an enhancer, 16 kHz mono to 48 kHz stereo. The work folder receives checkpoints, metrics.jsonl, TensorBoard files
and the enhancer itself, in WORKDIR/enhancer. If it holds a checkpoint, the run goes on from there, bit for bit.
Ctrl-C and SIGTERM save first.

  ualm enhance train --config configs/enhance_small.py --workdir runs/enhancer
  ualm enhance train --config configs/enhance_small.py --workdir runs/enhancer --config.data.folder=sounds/
"""


def main(argv: list[str]) -> int:
    parser = Parser(
        "ualm enhance train",
        description=_DESCRIPTION,
        epilog="Any field of the config can be overridden: --config.train.steps=50 --config.data.batch_size=4",
        overrides=True,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/enhance_small.py")
    parser.add_argument("--workdir", required=True, type=output_directory, metavar="DIR", help="where the run lives")
    add_device_arguments(parser, distributed=False)
    args, overrides = parser.parse_with_overrides(argv)

    from ualm_jax.cli.config_file import load_config
    from ualm_jax.mapping import from_mapping
    from ualm_jax.parallel.startup import start
    from ualm_jax.train.enhance_config import EnhanceRunConfig

    config = from_mapping(EnhanceRunConfig, load_config(args.config, overrides).to_dict())
    start(cpu_devices=args.devices)

    from ualm_jax.train.enhance import train_enhancer

    return 0 if train_enhancer(config, args.workdir) >= config.train.steps else STOPPED
