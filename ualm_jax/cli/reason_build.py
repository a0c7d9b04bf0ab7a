"""`ualm reason build`: what a model learns to think from, in two rounds."""

import pathlib

from ualm_jax.cli.arguments import Parser, integer, model_directory, output_directory

STAGES = ("sft", "pairs", "reflections", "final")
_DESCRIPTION = """\
Builds the data of UALM-Reason from sounds with rich captions (--config.sounds), stage by stage:

  sft          prompts and dialogues that a writer makes of rich captions, with their sounds    -> SFT-1
  pairs        the better and the worse of a model's answers to a prompt, as a scorer has it    -> DPO-1
  reflections  a model's first attempts, what is heard of them, a critique, the right sound     -> SFT-2
  final        with reflection against without                                                  -> DPO-2

  ualm reason build sft --config configs/reason_data_tiny.py --model runs/ualm_tiny --out data/reason_1
  ualm reason build pairs --config configs/reason_data_tiny.py --model runs/sft_1 --out data/pairs_1

OUT/dataset is the dataset; what could not be used stands in a quarantine.jsonl with its reason. Killed at any moment,
the same command goes on to the same result. docs/reason.md explains the fields of the config.
"""


def main(argv: list[str]) -> int:
    parser = Parser(
        "ualm reason build",
        description=_DESCRIPTION,
        overrides=True,
        epilog="Any field of the config can be overridden: --config.reflections=1000 --config.writer.kind=endpoint",
    )
    parser.add_argument("stage", choices=STAGES, help="what to build")
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/reason_data_tiny.py")
    parser.add_argument(
        "--model", required=True, type=model_directory, metavar="DIR", help="answers; of sft: has tokenizer and codec"
    )
    parser.add_argument("--step", type=integer(at_least=0), metavar="N", help="of a run; default: its newest")
    parser.add_argument("--out", required=True, type=output_directory, metavar="DIR", help="folder to make or finish")
    args, overrides = parser.parse_with_overrides(argv)

    from ualm_jax.cli.config_file import load_config
    from ualm_jax.mapping import from_mapping
    from ualm_jax.reason.builders.config import BuildConfig

    config = from_mapping(BuildConfig, load_config(args.config, overrides).to_dict())

    from ualm_jax.parallel.startup import start

    start()

    from ualm_jax.errors import UserError
    from ualm_jax.reason.builders.pool import open_pool
    from ualm_jax.reason.builders.remote import make_writer
    from ualm_jax.weights.fingerprints import parts_of

    parts = parts_of(args.model)
    for name in ("tokenizer", "codec"):
        if name not in parts:
            raise UserError(f"{args.model} holds no {name}; give a run that was trained with one.")
    folders = {name: parts[name] for name in ("tokenizer", "codec")}
    pool, writer = open_pool(config), make_writer(config.writer, args.out / "writer")
    print(_build(args, config, pool, writer, folders))
    return 0


def _build(args, config, pool, writer, folders: dict[str, pathlib.Path]) -> str:
    if args.stage == "sft":
        from ualm_jax.reason.builders.conversations import build_conversations

        info = build_conversations(pool, writer, config, args.out, folders)
        return f"{info.directory}: {info.records} conversations"

    from ualm_jax.pretrained import load
    from ualm_jax.reason.builders.rounds import Builder

    builder = Builder(load(args.model, step=args.step, slots=config.slots), pool, writer, config, folders)
    build = {"pairs": builder.pairs, "reflections": builder.reflections, "final": builder.final_pairs}[args.stage]
    found = build(args.out)
    left_out = "".join(f"\n  {count} x {reason}" for reason, count in found["left out"].items())
    return f"{args.out / 'dataset'}: {found['records']} records of {found['prompts']} prompts{left_out}"
