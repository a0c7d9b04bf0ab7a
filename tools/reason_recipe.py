"""UALM-Reason's two rounds: SFT-1, DPO-1, SFT-2, DPO-2, and the data of each from the model before.

python tools/reason_recipe.py --begin recipe/runs/ualm_tiny --out reason
python tools/reason_recipe.py --size 7b --begin runs/ualm_7b --out reason \
    --data="--config.sounds=/data/captions.jsonl --config.scorer=clap.py:score" --train="--distributed auto"

Stopped at any moment and run again, it keeps what is finished and goes on from there. launch/recipe.md, docs/reason.md.
"""

import os
import pathlib
import shlex
import sys
import time

from demo import claim, say, ualm

from ualm_jax.cli.arguments import Parser, input_directory, integer, model_directory, output_directory
from ualm_jax.errors import UserError

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SECOND_ROUND = {"7b": "--config.optimizer.peak_lr=2e-7"}  # what SFT-2 does otherwise than SFT-1; tiny: nothing


def main() -> None:
    parser = Parser("reason_recipe.py", description=__doc__)
    parser.add_argument("--begin", required=True, type=model_directory, metavar="RUN", help="hears, makes and reads")
    parser.add_argument("--encoder", type=input_directory, metavar="DIR", help="what it hears with; default: its own")
    parser.add_argument("--out", type=output_directory, default=pathlib.Path("reason"), help="folder to fill (reason)")
    parser.add_argument(
        "--size", default="tiny", help="which configs, such as tiny (default), 7b: sft_reason_SIZE, ..."
    )
    parser.add_argument("--steps", type=integer(at_least=1), help="of every stage; default: what its config says")
    parser.add_argument("--data", default="", metavar="WORDS", help="more words for every `ualm reason build`")
    parser.add_argument(
        "--train", default="", metavar="WORDS", help="more words for every `ualm train` and `ualm score`"
    )
    args = parser.parse_args()
    try:
        recipe(args)
    except UserError as error:
        sys.exit(f"reason_recipe.py: {error}")


def recipe(args) -> None:
    """Fills the folder `args.out`. Raises UserError for a folder that holds something else."""
    started = time.perf_counter()
    begin = args.begin.absolute()
    encoder = (args.encoder or begin / "encoder").absolute()
    if not encoder.is_dir():
        raise UserError(f"{begin} holds no audio encoder, so it can not listen; name one with --encoder")
    for config in ("sft_reason", "dpo_reason", "reason_data"):
        if not (CONFIGS / f"{config}_{args.size}.py").is_file():
            sizes = sorted(path.stem.removeprefix("reason_data_") for path in CONFIGS.glob("reason_data_*.py"))
            raise UserError(
                f"there is no config {config}_{args.size} in {CONFIGS}; of --size there are {', '.join(sizes)}"
            )
    claim(args.out)
    os.chdir(args.out)
    for words in commands(str(begin), str(encoder), args.size, args.steps):
        say(" ".join(words[:2]) if words[0] != "reason" else " ".join(words[:3]))
        more = args.data if words[0] == "reason" else args.train
        ualm(words + shlex.split(more))
    say(f"Done in {time.perf_counter() - started:.0f} s; runs/dpo_2 in {args.out} is the model that reflects.")


def commands(begin: str, encoder: str, size: str, steps: int | None) -> list[list[str]]:
    """What is run, in order, from within the folder of the recipe: words of `ualm`."""
    first, reflections = "data/reason_1/dataset", "data/reflections/dataset"
    mixed = f"--config.data.sources=({{'directory': '{first}'}}, {{'directory': '{reflections}'}})"
    second = [mixed, *SECOND_ROUND.get(size, "").split()]

    def build(stage: str, model: str, out: str) -> list[str]:
        return ["reason", "build", stage, "--config", f"configs/reason_data_{size}.py", "--model", model, "--out", out]

    def stage(config: str, run: str, model: str, data: list[str]) -> list[str]:
        words = ["--config", f"configs/{config}_{size}.py", f"--config.train.init_from={model}", *data]
        words.append(f"--config.train.encoder={encoder}")
        if steps is not None:
            words += [f"--config.train.steps={steps}", f"--config.train.save_interval={steps}"]
        return ["train", "--workdir", f"runs/{run}", *words]

    def prefer(run: str, model: str, pairs: str) -> list[list[str]]:
        data = [f"--config.data.directory={pairs}/dataset", f"--config.preference.reference={pairs}/reference"]
        train = stage("dpo_reason", run, model, data)
        return [["score", *train[3:]], train]

    return [
        build("sft", begin, "data/reason_1"),
        stage("sft_reason", "sft_1", begin, [f"--config.data.directory={first}"]),
        build("pairs", "runs/sft_1", "data/pairs_1"),
        *prefer("dpo_1", "runs/sft_1", "data/pairs_1"),
        build("reflections", "runs/dpo_1", "data/reflections"),
        stage("sft_reason", "sft_2", "runs/dpo_1", second),
        build("final", "runs/sft_2", "data/pairs_2"),
        *prefer("dpo_2", "runs/sft_2", "data/pairs_2"),
    ]


if __name__ == "__main__":
    main()
