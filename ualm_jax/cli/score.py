"""`ualm score`: what the model that a run begins with says of the run's data."""

from ualm_jax.cli.arguments import Parser, add_device_arguments

_DESCRIPTION = """\
Writes how likely a model finds every answer of the data: sums of log-probabilities, for each stream, as columns beside
the dataset. Preference learning compares with them, so that no second model has to be held while it trains. Config and
overrides are those of the run that will read them; the folder is its preference.reference.

  ualm score --config configs/dpo_gen_tiny.py --config.data.directory=data/prefer/pairs \\
    --config.train.init_from=runs/adapt --config.preference.reference=data/prefer/reference
  ualm train --config configs/dpo_gen_tiny.py ... the same ... --workdir runs/dpo

After an interruption the same command goes on.
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm score", overrides=True, description=_DESCRIPTION)
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/dpo_gen_tiny.py")
    add_device_arguments(parser)
    args, overrides = parser.parse_with_overrides(argv)

    from ualm_jax.cli.config_file import load_config
    from ualm_jax.mapping import from_mapping
    from ualm_jax.models.config import layer_bytes
    from ualm_jax.parallel.startup import start
    from ualm_jax.train.config import RunConfig

    config = from_mapping(RunConfig, load_config(args.config, overrides).to_dict())
    start(
        distributed=args.distributed, cpu_devices=args.devices, layer_bytes=layer_bytes(config.model, config.execution)
    )

    from ualm_jax.train.stages.score import score

    print(f"Log-probabilities: {score(config)}")
    return 0
