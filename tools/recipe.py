"""Every stage of the recipe, one after the other, on tiny models: from raw data to a model that plans and makes sound.

python tools/recipe.py --out recipe        launch/recipe.md explains the stages

Run again, it keeps what is finished and goes on from there.
"""

import os
import pathlib
import subprocess
import sys
import time

from demo import claim, say, ualm

from ualm_jax.cli.arguments import Parser, integer, output_directory
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.errors import UserError

TOOLS = pathlib.Path(__file__).parent.absolute()

DATA = {  # folder: task of SoundScript's second language
    "generation": "caption_to_audio",
    "understanding": "describe",
    "text": "text",
    "reason": "enrich",
}
ENCODER = "weights/encoder_tiny"
STAGES = (  # config, what it begins with, what it reads where the config does not say it, whether it hears
    ("ualm_gen_tiny", None, "generation", False),
    ("align_tiny", None, None, True),
    ("ualm_tiny", "align_tiny", None, True),
    ("sft_reason_tiny", "ualm_tiny", "reason", True),
    ("adapt_gen_tiny", "ualm_gen_tiny", "prefer/winners", False),
    ("dpo_gen_tiny", "adapt_gen_tiny", "prefer/pairs", False),
    ("grpo_gen_tiny", "dpo_gen_tiny", None, False),
)
PROMPTS = 16  # of which pairs are made


def main() -> None:
    parser = Parser("recipe.py", description=__doc__)
    parser.add_argument("--out", type=output_directory, default=pathlib.Path("recipe"), help="folder to fill (recipe)")
    parser.add_argument("--count", type=integer(at_least=8), default=256, help="conversations a dataset (%(default)s)")
    parser.add_argument("--steps", type=integer(at_least=1), help="of every stage; default: what its config says")
    args = parser.parse_args()
    try:
        recipe(args.out, args.count, args.steps)
    except UserError as error:
        sys.exit(f"recipe.py: {error}")


def recipe(out: pathlib.Path, count: int, steps: int | None) -> None:
    """Fills the folder `out`. Raises UserError for a folder that holds something else."""
    started = time.perf_counter()
    claim(out)
    os.chdir(out)
    say("Data: captions to sound, sounds to captions, text, plans")
    for name, task in DATA.items():
        if not pathlib.Path("data", name, "dataset.json").exists():
            ualm(f"data prepare --source soundscript --language 2 --count {count} --task {task} --out data/{name}")
    if not pathlib.Path(ENCODER).exists():
        say("An audio encoder with random weights")
        subprocess.run([sys.executable, TOOLS / "random_encoder.py", "--out", ENCODER], check=True)
    for config, begin, data, hears in STAGES:
        if data is not None and data.startswith("prefer"):
            make_pairs(begin)
        say(f"Stage {config}" + (f", from {begin}" if begin else ""))
        words = f"--config configs/{config}.py"
        words += f" --config.train.init_from=runs/{begin}" if begin else ""
        words += f" --config.data.directory=data/{data}" if data else ""
        words += f" --config.train.encoder={ENCODER}" if hears else ""
        words += f" --config.train.steps={steps} --config.train.save_interval={steps}" if steps else ""
        words += " --config.grpo.prompts=data/prompts.txt" if config.startswith("grpo") else ""
        if config.startswith("dpo"):
            ualm(f"score {words}")
        ualm(f"train --workdir runs/{config} {words}")
    say("A sound of the model that plans")
    ualm("generate --seconds 2 --workdir runs/sft_reason_tiny --out sound.wav --prompt", ["two clicks"])
    say(f"Done in {time.perf_counter() - started:.0f} s; the runs are in {out / 'runs'}.")


def make_pairs(run: str) -> None:
    """Of what a run answers to some captions of its data, unless they are there."""
    if pathlib.Path("data/prefer/selection.json").exists():
        return
    say(f"Pairs of what {run} answers")
    records = open_records(open_dataset("data/generation"))
    captions = [records[index].caption for index in range(min(PROMPTS, len(records)))]
    pathlib.Path("data/prompts.txt").write_text("".join(f"{caption}\n" for caption in captions))
    # Weighed so that likelihood decides only where the checker does not.
    scorers = "--scorer soundscript --scorer likelihood --weight likelihood=0.01"
    sampled = f"--workdir runs/{run} --prompts data/prompts.txt --seconds 1 --samples 3"
    ualm(f"prefer build {sampled} {scorers} --out data/prefer")


if __name__ == "__main__":
    main()
