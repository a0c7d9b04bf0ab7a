"""The paper's ablations in miniature, on the model in the box (docs/proof.md).

make proof        or        python tools/proof.py --out proof --results docs/results

Each experiment trains small UALMs on SoundScript, or takes the shipped one, and measures them with the program that
hears and with questions whose answers are known. Run again, it keeps what is finished and goes on; `--only` runs some.
"""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable

from box import DATA, ENCODER, TOOLS
from demo import claim, run, say, ualm
from effects import settle
from proof_report import write_report

from ualm_jax.cli.arguments import Parser, integer, output_directory
from ualm_jax.configs import soundscript
from ualm_jax.errors import UserError
from ualm_jax.weights.shipped import located

FAMILIES = {  # what the tasks of the box's data are for
    "generation": ("caption",),
    "understanding": ("describe", "question", "listen"),
    "text": ("text",),
}
SHARES = {"generation": 0.392, "understanding": 0.331, "text": 0.277}  # of tokens, the paper's
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
FRACTIONS = (1, 4, 16, 32)
HELD_OUT_SEED = 1_000_003
CAPTIONS = "--lists fresh combination --limit {}"
FLATTENED = TOOLS / "flattened.py"
TRAIN = "train --config configs/soundscript.py --config.optimizer.schedule=constant --config.eval.prompts=()"


@dataclasses.dataclass(frozen=True)
class Settings:
    """steps: of the longest run of an experiment. batch_size: rows of a step. scenes: with captions to learn from,
    other tasks in proportion. captions, questions: that each model is judged by."""

    model: str
    seeds: int
    steps: int
    batch_size: int
    scenes: int
    captions: int
    questions: int


def main() -> None:
    parser = Parser("proof.py", description=__doc__)
    parser.add_argument("--out", type=output_directory, default=pathlib.Path("proof"), help="to work in (proof)")
    parser.add_argument("--results", type=output_directory, help="where JSON and pictures go; default: --out")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), metavar="NAME")
    parser.add_argument("--model", default="soundscript", help="that guidance is tried on (%(default)s)")
    parser.add_argument("--seeds", type=integer(at_least=1), default=3, help="repetitions (%(default)s)")
    parser.add_argument("--steps", type=integer(at_least=4), default=3000, help="of a run (%(default)s)")
    rows = soundscript.get_config().data.batch_size
    parser.add_argument("--batch-size", type=integer(at_least=1), default=rows, help="rows of a step (%(default)s)")
    parser.add_argument("--scenes", type=integer(at_least=64), default=40_000, help="to learn from (%(default)s)")
    parser.add_argument("--captions", type=integer(at_least=4), default=128, help="to be obeyed (%(default)s)")
    parser.add_argument("--questions", type=integer(at_least=1), default=128, help="of each task (%(default)s)")
    args = parser.parse_args()
    try:
        proof(args)
    except UserError as error:
        sys.exit(f"proof.py: {error}")


def proof(args) -> None:
    """Fills the folder `args.out`. Raises UserError for a folder that holds something else, or was begun otherwise."""
    results = (args.results or args.out).absolute()
    model = os.path.abspath(args.model) if os.path.isdir(args.model) else args.model
    counts = (getattr(args, field.name) for field in dataclasses.fields(Settings)[1:])
    settings = Settings(model, *counts)
    claim(args.out)
    os.chdir(args.out)
    settle(pathlib.Path("settings.json"), {k: v for k, v in dataclasses.asdict(settings).items() if k != "seeds"})
    for name in args.only:
        for seed in range(args.seeds):
            EXPERIMENTS[name](settings, seed)
            results.mkdir(parents=True, exist_ok=True)
            write_report(pathlib.Path.cwd(), results)


def guidance(settings: Settings, seed: int) -> None:
    """The scale of guidance, on a model that is trained."""
    for scale in SCALES:
        obey(f"guidance/{scale:g}/{seed}", settings.model, settings, f"--seed {1000 * seed} --cfg-scale {scale}")


def data(settings: Settings, seed: int) -> None:
    """All captions and sounds, and fewer, at equal steps: the loss of held-out ones along the way."""
    held_out = prepared("held-out", "caption", min(512, settings.scenes), "--seed", HELD_OUT_SEED)
    for fraction in FRACTIONS:
        directory = prepared(f"caption-{fraction}", "caption", settings.scenes // fraction)
        words = f"--config.eval.directory={held_out} --config.eval.every={max(settings.steps // 10, 1)}"
        run_folder = trained(f"data/1-{fraction}/{seed}", {directory: 1.0}, settings, seed, settings.steps, words)
        keep(f"data/1-{fraction}/{seed}", losses_of(run_folder))


def convergence(settings: Settings, seed: int) -> None:
    """One unified run, judged at every eighth of its steps."""
    name = f"convergence/{seed}"
    for eighth in range(1, 9):
        steps = settings.steps * eighth // 8
        folder = trained(name, mixture(settings), settings, seed, steps)
        judge(f"{name}/{steps}", str(folder), settings)


def unified(settings: Settings, seed: int) -> None:
    """One model of all tasks, against one for each, which sees as many tokens of its task in as many steps."""
    folder = trained(f"unified/all/{seed}", mixture(settings), settings, seed, settings.steps)
    judge(f"unified/all/{seed}", str(folder), settings)
    for family, share in SHARES.items():
        steps = max(round(settings.steps * share), 1)
        folder = trained(f"unified/{family}/{seed}", mixture(settings, {family: 1.0}), settings, seed, steps)
        judge(f"unified/{family}/{seed}", str(folder), settings, (family,))


def alignment(settings: Settings, seed: int) -> None:
    """From a model of texts to a unified one in a fifth of the steps, with a stage that trains what is new, or not."""
    text = trained(f"alignment/text/{seed}", mixture(settings, {"text": 1.0}), settings, seed, settings.steps)
    judge(f"alignment/text/{seed}", str(text), settings, ("text",))
    aligned = trained(
        f"alignment/aligned/{seed}",
        mixture(settings),
        settings,
        seed,
        max(settings.steps // 10, 1),
        f"{beginning(text)} --config.train.trainable=('adapter','embed[audio]','audio_head','encoder')",
    )
    steps = max(settings.steps // 5, 1)
    for name, begin in (("with", aligned), ("without", text)):
        folder = trained(f"alignment/{name}/{seed}", mixture(settings), settings, seed, steps, beginning(begin))
        judge(f"alignment/{name}/{seed}", str(folder), settings)


def twice(settings: Settings, seed: int) -> None:
    """Generation drawn as often as the paper does, which is twice, and once."""
    for name, factor in (("twice", 1.0), ("once", 0.5)):
        shares = SHARES | {"generation": factor * SHARES["generation"]}
        folder = trained(f"twice/{name}/{seed}", mixture(settings, shares), settings, seed, settings.steps)
        judge(f"twice/{name}/{seed}", str(folder), settings)


def pattern(settings: Settings, seed: int) -> None:
    """Generation alone, by the delay pattern and by codes one after the other: as many sounds in as many steps."""
    delayed = prepared("caption", "caption", settings.scenes)
    flat = pathlib.Path("data/caption-flattened")
    if not (flat / "dataset.json").exists():
        run(FLATTENED, "data", delayed, flat)
    alike = "--config.data.stream_weights=()"  # which codes one after the other cannot have
    folder = trained(f"pattern/delay/{seed}", {delayed: 1.0}, settings, seed, settings.steps, alike)
    judge(f"pattern/delay/{seed}", str(folder), settings, ("generation",))
    config = soundscript.get_config()
    books, size = config.model.vocabulary.num_codebooks, config.model.vocabulary.codebook_size
    one = f"--config.model.vocabulary.num_codebooks=1 --config.model.vocabulary.codebook_size={books * size}"
    longer = f"--config.data.seq_len={books * config.data.seq_len}"
    folder = trained(
        f"pattern/flattened/{seed}", {flat: 1.0}, settings, seed, settings.steps, f"{alike} {one} {longer}"
    )
    out = pathlib.Path("found", "pattern", "flattened", str(seed), "generation")
    if not (out / "report.json").exists():
        run(FLATTENED, "sounds", folder, out / "wavs", *CAPTIONS.format(settings.captions // 2).split())
        ualm(f"eval soundscript {CAPTIONS.format(settings.captions // 2)} --wavs {out / 'wavs'} --out", out)


EXPERIMENTS: dict[str, Callable[[Settings, int], None]] = {
    "guidance": guidance,
    "data": data,
    "convergence": convergence,
    "unified": unified,
    "alignment": alignment,
    "twice": twice,
    "pattern": pattern,
}


def prepared(name: str, task: str, count: int, *words) -> pathlib.Path:
    """A dataset, made once."""
    out = pathlib.Path("data", name)
    if not (out / "dataset.json").exists():
        given = ["--source soundscript --language 2 --task", DATA[task][0], "--count", count, *words]
        ualm("data prepare", *given, "--codec", located("soundscript") / "codec", "--out", out)
    return out


def mixture(settings: Settings, shares: dict[str, float] = SHARES) -> dict[pathlib.Path, float]:
    """Folders of the tasks of some families, and their shares of tokens; each task of a family has the same."""
    return {
        prepared(task, task, DATA[task][1] * settings.scenes // DATA["caption"][1]): share / len(FAMILIES[family])
        for family, share in shares.items()
        for task in FAMILIES[family]
    }


def trained(
    name: str, sources: dict[pathlib.Path, float], settings: Settings, seed: int, steps: int, words: str = ""
) -> pathlib.Path:
    """The run of this name, at `steps` or beyond."""
    folder = pathlib.Path("runs") / name
    done = [int(path.name) for path in (folder / "checkpoints").glob("[0-9]*")]
    if max(done, default=0) < steps:
        say(f"{name}: {steps} steps")
        if not pathlib.Path("weights/soundscript").exists():
            run(TOOLS / "random_encoder.py", "--out", "weights/soundscript", *ENCODER.split())
        given = tuple({"directory": str(path), "weight": share} for path, share in sources.items())
        seeds = f"--config.train.seed={seed} --config.data.seed={seed} --config.data.batch_size={settings.batch_size}"
        length = f"--config.train.steps={steps} --config.train.save_interval={steps}"
        ualm(f"{TRAIN} {seeds} {length} {words}", [f"--config.data.sources={given!r}"], "--workdir", folder)
    return folder


def beginning(run_folder: pathlib.Path) -> str:
    """Words for a run that begins with another one's weights, and with the encoder that it has trained."""
    return f"--config.train.init_from={run_folder} --config.train.encoder={run_folder}"


def judge(name: str, model: str, settings: Settings, families: tuple[str, ...] = tuple(FAMILIES)) -> None:
    """Keeps the share of captions obeyed, and of answers right, as far as the model has learnt them."""
    if "generation" in families:
        obey(f"{name}/generation", model, settings, "--cfg-scale 1.5")
    for family in ("understanding", "text"):
        out = pathlib.Path("found", name, f"{family}.json")
        if family in families and not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            tasks = f"--task {' '.join(FAMILIES[family])} --split train --count {settings.questions}"
            ualm(f"eval answers {tasks} --model", model, "--json", out)


def obey(name: str, model: str, settings: Settings, words: str) -> None:
    """Keeps the report of held-out captions obeyed."""
    out = pathlib.Path("found", name)
    if not (out / "report.json").exists():
        limit = CAPTIONS.format(settings.captions // 2)
        ualm(f"eval soundscript {limit} --temperature 0.3 {words} --model", model, "--out", out)


def losses_of(folder: pathlib.Path) -> list[dict[str, float]]:
    """Loss of training and of held-out sounds, by step."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: row[name] for name in ("step", "loss", "eval/loss") if name in row} for row in rows]


def keep(name: str, content: object) -> None:
    path = pathlib.Path("found", f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
