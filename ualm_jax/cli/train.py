"""`ualm train`: a training run from a config file."""

from ualm_jax.cli.arguments import Parser, add_device_arguments, run_directory
from ualm_jax.errors import STOPPED

_DESCRIPTION = """\
Trains a model. The work folder receives checkpoints, metrics.jsonl, TensorBoard files, generated samples, and what
`ualm generate` needs. If it holds a checkpoint, the run goes on from there, bit for bit. Ctrl-C and SIGTERM save first.

  ualm train --config configs/tiny.py --workdir runs/tiny --config.data.directory=data/script
"""

_EPILOG = """\
Any field of the config can be overridden:

  --config.train.steps=50 --config.data.batch_size=16 --config.mesh.fsdp=8

  ualm train --config configs/tiny.py --print-config      lists all fields with their values

docs/train.md says what they mean.
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm train", overrides=True, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/tiny.py")
    parser.add_argument(
        "--workdir", type=run_directory, metavar="DIR", help="where the run lives; may be gs://BUCKET/PATH"
    )
    parser.add_argument("--print-config", action="store_true", help="list all fields with their values, train nothing")
    add_device_arguments(parser)
    args, overrides = parser.parse_with_overrides(argv)
    if args.workdir is None and not args.print_config:
        parser.error("--workdir is missing: the folder where the run lives")

    from ualm_jax.cli.config_file import listed, load_config

    values = load_config(args.config, overrides).to_dict()
    if args.print_config:
        print("\n".join(listed(values)))
        return 0

    from ualm_jax.mapping import from_mapping
    from ualm_jax.models.config import layer_bytes
    from ualm_jax.parallel.startup import start
    from ualm_jax.train.config import RunConfig

    config = from_mapping(RunConfig, values)
    start(
        distributed=args.distributed,
        cpu_devices=args.devices,
        layer_bytes=layer_bytes(config.model, config.execution),
        preemption=True,
    )

    from ualm_jax.train.stages.run import train

    return 0 if train(config, args.workdir) >= config.train.steps else STOPPED
