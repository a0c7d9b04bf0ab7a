"""What preference learning does to a model of SoundScript, judged by the program that hears (docs/post-training.md).

python tools/effects.py --model soundscript --out effects --results docs/results

With each seed, captions of its own are answered several times, and the model learns of the answers in five ways:

adapted     cross-entropy on the best answers
dpo         that, then DPO with the cross-entropy of the chosen answers, as the paper does it
unadapted   DPO from the model itself
no-ce       as dpo, without cross-entropy
grpo        GRPO from the model itself, on as many answers as the others were chosen from

Each of them then makes sounds for the same held-out captions. Run again, it keeps what is finished and goes on.
"""

import dataclasses
import json
import os
import pathlib
import resource
import shutil
import sys

from demo import claim, say, ualm
from effects_report import write_report

from ualm_jax.audio.write import write_whole
from ualm_jax.cli.arguments import Parser, integer, output_directory
from ualm_jax.data.raw.soundscript import Plan, SoundScript2
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript.benchmark import RATE, items
from ualm_jax.weights.run_folder import saved_steps

PROMPTS_SEED, HELD_OUT_SEED = 4_000_000, 5_000_000  # of language 2; the model's data is of seeds 0 and 1
SECONDS = 4.0  # no scene is longer
GROUP, GROUPS = 8, 4  # answers to a prompt, and prompts of a step, in configs/grpo_soundscript.py
CANDIDATES = f"--max-seconds {SECONDS} --temperature 1 --cfg-scale 1.5 --slots 16"
CHOICE = "--scorer soundscript --pairs 2 --margin 0.2 --chosen-at-least soundscript=0.5 --examples 2"
JUDGED = {"temperature": 0.3, "cfg_scale": 1.5}


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to learn. config: of configs/. begin: the arm whose model it begins with, None for the given model.
    data: folder of what `ualm prefer build` made. words: further options."""

    config: str
    begin: str | None
    data: str | None
    words: str = ""


ARMS = {
    "adapted": Arm("adapt_soundscript", None, "winners"),
    "dpo": Arm("dpo_soundscript", "adapted", "pairs"),
    "unadapted": Arm("dpo_soundscript", None, "pairs"),
    "no-ce": Arm("dpo_soundscript", "adapted", "pairs", "--config.preference.ce_weight=0.0"),
    "grpo": Arm("grpo_soundscript", None, None),
}


def main() -> None:
    parser = Parser("effects.py", description=__doc__)
    parser.add_argument("--model", default="soundscript", help="a model of SoundScript, or its folder (%(default)s)")
    parser.add_argument("--out", type=output_directory, default=pathlib.Path("effects"), help="to work in (effects)")
    parser.add_argument("--results", type=output_directory, help="where JSON and picture go; default: --out")
    parser.add_argument("--seeds", type=integer(at_least=1), default=3, help="repetitions (%(default)s)")
    parser.add_argument("--parts", type=int, choices=(1, 2, 3), default=2, help="of a caption, at most (%(default)s)")
    parser.add_argument("--prompts", type=integer(at_least=2), default=48, help="captions to learn from (%(default)s)")
    parser.add_argument("--samples", type=integer(at_least=2), default=8, help="answers to each (%(default)s)")
    parser.add_argument("--captions", type=integer(at_least=2), default=128, help="held-out ones (%(default)s)")
    args = parser.parse_args()
    try:
        effects(args)
    except UserError as error:
        sys.exit(f"effects.py: {error}")


def effects(args) -> None:
    """Fills the folder `args.out`. Raises UserError for a folder that holds something else, or was begun otherwise."""
    steps, left = divmod(args.prompts * args.samples, GROUP * GROUPS)
    if left:
        raise UserError(f"--prompts times --samples must be a multiple of {GROUP * GROUPS}, what GRPO asks in a step.")
    results = (args.results or args.out).absolute()
    model = os.path.abspath(args.model) if os.path.isdir(args.model) else args.model
    claim(args.out)
    os.chdir(args.out)
    settings = {name: getattr(args, name) for name in ("model", "parts", "prompts", "samples", "captions")}
    settle(pathlib.Path("settings.json"), settings)
    for seed in range(args.seeds):
        folder = pathlib.Path(f"seed-{seed}")
        folder.mkdir(exist_ok=True)
        prompts, held_out = captions(seed, args.prompts, args.captions, args.parts)
        (folder / "prompts.txt").write_text("".join(f"{caption}\n" for caption in prompts))
        if not (folder / "prefer" / "selection.json").exists():
            say(f"Seed {seed}: {args.prompts} captions, {args.samples} answers to each")
            words = f"--samples {args.samples} --seed {seed * args.prompts * args.samples} {CANDIDATES} {CHOICE}"
            words += f" --prompts {folder}/prompts.txt --out {folder}/prefer"
            timed(folder, "build", f"prefer build {words}", ["--workdir", model])
        for name in ARMS:
            learn(name, folder, model, seed, steps)
        judge("model", model, folder, held_out, seed)
        for name in ARMS:
            judge(name, str(folder / name), folder, held_out, seed)
        found = write_report([pathlib.Path(f"seed-{done}") for done in range(seed + 1)], settings, list(ARMS))
        results.mkdir(parents=True, exist_ok=True)
        for path in found:
            shutil.copyfile(path, results / f"effects-{pathlib.Path(model).name}{path.suffix}")


def captions(seed: int, prompts: int, held_out: int, parts: int) -> tuple[list[str], list[str]]:
    """Captions to learn from and captions to be judged by, in turn of 1 to `parts` parts. No plan stands in both, and
    none of the benchmark's captions is learnt from."""
    judged = _drawn(HELD_OUT_SEED + seed, held_out, parts, set(), set())
    benchmark = {item.caption for item in items()}
    learnt = _drawn(PROMPTS_SEED + seed, prompts, parts, {plan for _, plan in judged}, benchmark)
    return [caption for caption, _ in learnt], [caption for caption, _ in judged]


def _drawn(seed: int, count: int, parts: int, plans: set[Plan], words: set[str]) -> list[tuple[str, Plan]]:
    """Captions and plans of the language, no plan twice and none of those that are given."""
    source, found, index, plans = SoundScript2(2**31, seed, RATE), [], 0, set(plans)
    while len(found) < count:
        script = source.script(index)
        index += 1
        wanted = len(script.plan.parts) == 1 + len(found) % parts
        if wanted and script.plan not in plans and script.caption not in words:
            found.append((script.caption, script.plan))
            plans.add(script.plan)
    return found


def learn(name: str, folder: pathlib.Path, model: str, seed: int, steps: int) -> None:
    """One run, unless it is finished. steps: of GRPO."""
    arm, run = ARMS[name], folder / name
    if (run / "finished").exists():
        return
    say(f"{folder}: {name}")
    begin = folder / arm.begin if arm.begin else model
    words = f"--config configs/{arm.config}.py --config.data.seed={seed} {arm.words}"
    words += f" --config.data.directory={folder}/prefer/{arm.data}" if arm.data else ""
    words += f" --config.grpo.prompts={folder}/prompts.txt --config.train.steps={steps}" if arm.data is None else ""
    words += f" --config.preference.reference={folder}/reference-{arm.begin or 'model'}" if arm.data == "pairs" else ""
    given = [f"--config.train.init_from={begin}"]
    if arm.data == "pairs" and not saved_steps(run):
        timed(folder, f"score {arm.begin or 'model'}", f"score {words}", given)
    timed(folder, name, f"train --workdir {run} {words}", given)
    (run / "finished").touch()


def judge(name: str, model: str, folder: pathlib.Path, held_out: list[str], seed: int) -> None:
    """Writes FOLDER/judged-NAME.json, of each caption whether all is right, and the share of tracks that are."""
    out = folder / f"judged-{name}.json"
    if out.exists():
        return
    from ualm_jax import load
    from ualm_jax.evaluate.soundscript.scorer import verdict_of
    from ualm_jax.parallel.startup import start

    start()
    before = time_used(resource.RUSAGE_SELF)
    system = load(model, slots=16)
    frames = round(SECONDS * system.codec.frame_rate)
    clips = system.generate(held_out, seed=seed * len(held_out), max_frames=frames, **JUDGED)
    verdicts = [verdict_of(caption, clip) for caption, clip in zip(held_out, clips, strict=True)]
    rows = [
        {"caption": caption, "right": verdict.right, "tracks": verdict.share}
        for caption, verdict in zip(held_out, verdicts, strict=True)
    ]
    write_whole({out: (json.dumps(rows, indent=1) + "\n").encode()})
    add_time(folder, f"judge {name}", time_used(resource.RUSAGE_SELF) - before)
    say(f"{folder}: {name}: {sum(row['right'] for row in rows)} of {len(rows)} right")


def timed(folder: pathlib.Path, name: str, *words: str | list[str]) -> None:
    """Runs a command of `ualm`, and adds up the processor's seconds in FOLDER/seconds.json."""
    before = time_used(resource.RUSAGE_CHILDREN)
    ualm(*words)
    add_time(folder, name, time_used(resource.RUSAGE_CHILDREN) - before)


def time_used(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def add_time(folder: pathlib.Path, name: str, seconds: float) -> None:
    path = folder / "seconds.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = round(known.get(name, 0.0) + seconds, 1)
    write_whole({path: (json.dumps(known, indent=1) + "\n").encode()})


def settle(path: pathlib.Path, settings: dict) -> None:
    """Keeps the settings of a folder. Raises UserError where it was begun with others."""
    if path.exists() and (before := json.loads(path.read_text())) != settings:
        raise UserError(f"{path.parent.absolute()} was begun with {before}; choose another --out.")
    path.write_text(json.dumps(settings) + "\n")


if __name__ == "__main__":
    main()
