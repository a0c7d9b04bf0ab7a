"""`ualm compile`: does a run fit machines that are not here, and how fast can it be there?"""

import json
import os

from ualm_jax.cli.arguments import Parser, integer, output_file

_DESCRIPTION = """\
Compiles the training step of a config for a named topology, on any machine, without the devices: for TPUs with libtpu,
for NVIDIA cards with JAX's GPU plugin. Prints the memory a device needs, what is sent over the network, and the least
time a step can take.

  ualm compile --config configs/pretrain_1_5b.py --topology v5e:4x4 --config.data.batch_size=16
  ualm compile --config configs/pretrain_7b.py --topology v5p:8x8x8 --config.mesh.fsdp=64 --json 7b.json
  ualm compile --config configs/pretrain_1_5b.py --topology v5p:2x2x4 --sweep 3
"""

_EPILOG = """\
Topologies: v4, v5e, v5p or v6e with a shape (v5e:4x4, v5p:8x8x8), h100, h200 or a100-80 with a number of cards (h100:8)
or machines x cards (h100:4x8), cpu with a number of virtual devices (cpu:8).
Fields of the config are set as in `ualm train`: --config.mesh.fsdp=8.
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm compile", description=_DESCRIPTION, epilog=_EPILOG, overrides=True)
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/pretrain_1_5b.py")
    parser.add_argument("--topology", required=True, metavar="NAME", help="such as v5e:4x4 or h100:8")
    parser.add_argument("--json", type=output_file(), metavar="FILE", help="write everything that was found")
    parser.add_argument(
        "--documents",
        type=integer(at_least=1),
        default=1,
        metavar="N",
        help="of one length in a row: MFU counts attention inside of them (default 1)",
    )
    parser.add_argument(
        "--sweep",
        type=integer(at_least=1),
        metavar="N",
        help="try meshes, microbatches and remat policies until N of them fit",
    )
    args, overrides = parser.parse_with_overrides(argv)

    # The program is for other devices; those of this machine stay untouched.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from rich.console import Console

    from ualm_jax.aot.compile import compile_step
    from ualm_jax.aot.sweep import sweep
    from ualm_jax.aot.table import report_table, sweep_table
    from ualm_jax.aot.topology import describe
    from ualm_jax.cli.config_file import load_config
    from ualm_jax.mapping import from_mapping
    from ualm_jax.train.config import RunConfig

    values = load_config(args.config, overrides).to_dict()
    reads = values["train"].get("objective") != "grpo"  # which learns from prompts
    if reads and values["data"].get("directory") is None and not values["data"].get("sources"):
        values["data"]["directory"] = "none is read"
    config = from_mapping(RunConfig, values)
    topology = describe(args.topology)
    console = Console()
    if args.sweep is None:
        reports = [compile_step(config, topology, args.documents)]
        console.print(report_table(reports[0]))
    else:
        reports = []
        for report in sweep(config, topology, args.sweep, args.documents):
            reports.append(report)
            state = "fits" if report.problem is None else "does not fit"
            console.print(f"mesh {tuple(report.mesh.values())} x{report.grad_accum_steps} {report.remat}: {state}")
        console.print(sweep_table(reports))
    if args.json is not None:
        args.json.write_text(json.dumps([report.to_mapping() for report in reports], indent=2) + "\n")
    return 0 if any(report.problem is None for report in reports) else 1
