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

from box import DATA, TOOLS
from demo import claim, run, say, ualm
from effects import settle
from proof_report import write_report

from ualm_jax.cli.arguments import Parser, integer, number, output_directory
from ualm_jax.configs import soundscript
from ualm_jax.data.raw.soundscript import SoundScript2
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
FLATTENED = TOOLS / "flattened.py"
TRAIN = "train --config configs/soundscript.py --config.train.trainable=('*',) --config.eval.prompts=()"


@dataclasses.dataclass(frozen=True)
class Settings:
    """steps: of the longest run of an experiment. batch_size: rows of a step. scenes: with captions to learn from,
    other tasks in proportion. captions, questions: that each model is judged by. max_seconds: of a scene. train: words
    for every training."""

    model: str
    seeds: int
    steps: int
    batch_size: int
    scenes: int
    captions: int
    questions: int
    max_seconds: float
    train: str

    def __post_init__(self):
        if self.steps % 8:
            raise UserError(f"--steps must be a multiple of 8, got {self.steps}: each eighth is judged.")


def main() -> None:
    parser = Parser("proof.py", description=__doc__)
    parser.add_argument("--out", type=output_directory, default=pathlib.Path("proof"), help="to work in (proof)")
    parser.add_argument("--results", type=output_directory, help="where JSON and pictures go; default: --out")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), metavar="NAME")
    parser.add_argument("--model", default="soundscript", help="that guidance is tried on (%(default)s)")
    parser.add_argument("--seeds", type=integer(at_least=1), default=3, help="repetitions (%(default)s)")
    parser.add_argument("--steps", type=integer(at_least=8), default=3000, help="of a run (%(default)s)")
    rows = soundscript.get_config().data.batch_size
    parser.add_argument("--batch-size", type=integer(at_least=1), default=rows, help="rows of a step (%(default)s)")
    parser.add_argument("--scenes", type=integer(at_least=64), default=40_000, help="to learn from (%(default)s)")
    parser.add_argument("--captions", type=integer(at_least=4), default=128, help="to be obeyed (%(default)s)")
    longest = SoundScript2.max_seconds
    parser.add_argument("--max-seconds", type=number(above=0), default=longest, help="of a scene (%(default)s)")
    parser.add_argument("--train", default="", metavar="WORDS", help="added to every `ualm train`")
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
    held_out = prepared("held-out", "caption", settings, settings.captions, "--seed", HELD_OUT_SEED)
    for fraction in FRACTIONS:
        directory = prepared(f"caption-{fraction}", "caption", settings, settings.scenes // fraction)
        words = f"--config.eval.directory={held_out} --config.eval.every={max(settings.steps // 10, 1)}"
        run_folder = trained(f"data/1-{fraction}/{seed}", {directory: 1.0}, settings, seed, settings.steps, words)
        keep(f"data/1-{fraction}/{seed}", losses_of(run_folder))


def convergence(settings: Settings, seed: int) -> None:
    """A unified run, judged at every eighth of its steps."""
    folder = of_all_tasks(settings, seed)
    for eighth in range(1, 9):
        step = settings.steps * eighth // 8
        judge(f"convergence/{seed}/{step}", str(folder), settings, step=step)


def unified(settings: Settings, seed: int) -> None:
    """One model of all tasks, against one for each, which sees as many tokens of its task in as many steps."""
    judge(f"unified/all/{seed}", str(of_all_tasks(settings, seed)), settings)
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
        f"--config.train.init_from={text} --config.train.trainable=('adapter','embed[audio]','audio_head')",
    )
    steps = max(settings.steps // 5, 1)
    for name, begin in (("with", aligned), ("without", text)):
        words = f"--config.train.init_from={begin}"
        folder = trained(f"alignment/{name}/{seed}", mixture(settings), settings, seed, steps, words)
        judge(f"alignment/{name}/{seed}", str(folder), settings)


def twice(settings: Settings, seed: int) -> None:
    """Generation drawn as often as the paper does, which is twice, and once."""
    shares = SHARES | {"generation": SHARES["generation"] / 2}
    once = trained(f"once/{seed}", mixture(settings, shares), settings, seed, settings.steps)
    for name, folder in (("twice", of_all_tasks(settings, seed)), ("once", once)):
        judge(f"twice/{name}/{seed}", str(folder), settings)


def pattern(settings: Settings, seed: int) -> None:
    """Generation alone, by the delay pattern and by codes one after the other: as many sounds in as many steps."""
    delayed = prepared("caption", "caption", settings, settings.scenes)
    flat = pathlib.Path("data/caption-flattened")
    if not (flat / "dataset.json").exists():
        run(FLATTENED, "data", delayed, flat)
    alike = "--config.data.stream_weights=()"  # which codes one after the other cannot have
    folder = trained(f"pattern/delay/{seed}", {delayed: 1.0}, settings, seed, settings.steps, alike)
    judge(f"pattern/delay/{seed}", str(folder), settings, ("generation",))
    config = json.loads((folder / "config.json").read_text())
    books, size = (config["model"]["vocabulary"][name] for name in ("num_codebooks", "codebook_size"))
    one = f"--config.model.vocabulary.num_codebooks=1 --config.model.vocabulary.codebook_size={books * size}"
    longer = f"--config.data.seq_len={books * config['data']['seq_len']}"
    folder = trained(
        f"pattern/flattened/{seed}", {flat: 1.0}, settings, seed, settings.steps, f"{alike} {one} {longer}"
    )
    out = pathlib.Path("found", "pattern", "flattened", str(seed), "generation")
    if not (out / "report.json").exists():
        run(FLATTENED, "sounds", folder, out / "wavs", *captions(settings).split())
        ualm(f"eval soundscript {captions(settings)} --wavs {out / 'wavs'} --out", out)


EXPERIMENTS: dict[str, Callable[[Settings, int], None]] = {
    "guidance": guidance,
    "data": data,
    "convergence": convergence,
    "unified": unified,
    "alignment": alignment,
    "twice": twice,
    "pattern": pattern,
}


def of_all_tasks(settings: Settings, seed: int) -> pathlib.Path:
    """The unified run, which three experiments look at."""
    return trained(f"all/{seed}", mixture(settings), settings, seed, settings.steps)


def prepared(name: str, task: str, settings: Settings, count: int, *words) -> pathlib.Path:
    """A dataset, made once."""
    out = pathlib.Path("data", name)
    if not (out / "dataset.json").exists():
        given = ["--source soundscript --language 2 --task", DATA[task][0], "--count", count]
        given += ["--max-seconds", settings.max_seconds, *words]
        ualm("data prepare", *given, "--codec", located("soundscript") / "codec", "--out", out)
    return out


def mixture(settings: Settings, shares: dict[str, float] = SHARES) -> dict[pathlib.Path, float]:
    """Folders of the tasks of some families, and their shares of tokens; each task of a family has the same."""
    return {
        prepared(task, task, settings, DATA[task][1] * settings.scenes // DATA["caption"][1]): share
        / len(FAMILIES[family])
        for family, share in shares.items()
        for task in FAMILIES[family]
    }


def trained(
    name: str, sources: dict[pathlib.Path, float], settings: Settings, seed: int, steps: int, words: str = ""
) -> pathlib.Path:
    """The finished run of this name, with a checkpoint at every eighth. It begins with random weights, if `words` say
    nothing else, and hears by the shipped encoder, which stays as it is. The learning rate rises for a twentieth of the
    steps and falls to nothing over the last two thirds."""
    folder = pathlib.Path("runs") / name
    if not (folder / "checkpoints" / str(steps)).exists():
        say(f"{name}: {steps} steps")
        given = tuple({"directory": str(path), "weight": share} for path, share in sources.items())
        seeds = f"--config.train.seed={seed} --config.data.seed={seed} --config.data.batch_size={settings.batch_size}"
        length = f"--config.train.steps={steps} --config.train.save_interval={max(steps // 8, 1)}"
        length += f" --config.train.max_to_keep=8 --config.optimizer.warmup_steps={max(steps // 20, 1)}"
        length += f" --config.optimizer.decay_steps={steps} --config.optimizer.cooldown_steps={2 * steps // 3}"
        heard = ["--config.train.encoder", str(located("soundscript") / "encoder")]
        given = [f"--config.data.sources={given!r}"]
        ualm(f"{TRAIN} {seeds} {length} {settings.train} {words}", heard, given, "--workdir", folder)
    return folder


def judge(
    name: str,
    model: str,
    settings: Settings,
    families: tuple[str, ...] = tuple(FAMILIES),
    step: int | None = None,
) -> None:
    """Keeps the share of captions obeyed, and of answers right, as far as the model has learnt them. step: of a run;
    None: its newest."""
    at = "" if step is None else f"--step {step}"
    if "generation" in families:
        obey(f"{name}/generation", model, settings, f"--cfg-scale 1.5 {at}")
    for family in ("understanding", "text"):
        out = pathlib.Path("found", name, f"{family}.json")
        if family in families and not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            tasks = f"--task {' '.join(FAMILIES[family])} --split train --count {settings.questions} {at}"
            tasks += f" --max-seconds {settings.max_seconds}"
            ualm(f"eval answers {tasks} --model", model, "--json", out)


def obey(name: str, model: str, settings: Settings, words: str) -> None:
    """Keeps the report of held-out captions obeyed."""
    out = pathlib.Path("found", name)
    if not (out / "report.json").exists():
        ualm(f"eval soundscript {captions(settings)} --temperature 0.3 {words} --model", model, "--out", out)


def captions(settings: Settings) -> str:
    """Words for the captions that generation is judged by, half of them new, half held-out combinations."""
    return f"--lists fresh combination --limit {settings.captions // 2} --max-seconds {settings.max_seconds}"


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
