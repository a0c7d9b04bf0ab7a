"""`ualm train`: a training run from a config file."""

import argparse
import pathlib

_DESCRIPTION = """\
Trains a model. The work folder receives checkpoints, metrics.jsonl, TensorBoard files, generated samples, and what
`ualm generate` needs. If it holds a checkpoint, the run goes on from there, bit for bit. Ctrl-C and SIGTERM save first.

  ualm train --config configs/tiny.py --workdir runs/tiny --config.data.directory=data/script
"""

_EPILOG = """\
Any field of the config can be overridden:

  --config.train.steps=50 --config.data.batch_size=16 --config.mesh.fsdp=8

Groups: model (sizes, dtypes, remat), data (directory, seq_len, batch_size, seed, ...), optimizer, train (steps,
accumulate, save_interval, ...), mesh (data, fsdp, tensor; one may be -1) and eval. The config files list all fields.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ualm train",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/tiny.py")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="where the run lives")
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="auto",
        metavar="HOST:PORT,COUNT,INDEX",
        help="one process of many; the others are found through SLURM, Kubernetes or TPU metadata unless given",
    )
    parser.add_argument("--devices", type=int, metavar="N", help="pretend to be N CPU devices, to try a mesh")
    args, overrides = parser.parse_known_args(argv)
    for override in overrides:
        if not override.startswith("--config."):
            parser.error(f"unknown argument {override}; fields are set as --config.group.field=value")

    from ualm_jax.cli.config_file import load_config
    from ualm_jax.mapping import from_mapping
    from ualm_jax.models.config import layer_bytes
    from ualm_jax.parallel.startup import start
    from ualm_jax.train.config import RunConfig

    config = from_mapping(RunConfig, load_config(args.config, overrides).to_dict())
    start(
        distributed=args.distributed, cpu_devices=args.devices, layer_bytes=layer_bytes(config.model, config.execution)
    )

    from ualm_jax.train.stages import train

    train(config, args.workdir)
    return 0
