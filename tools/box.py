"""The model in the box: everything behind `--model soundscript`, made again.

make box        or        python tools/box.py --out box

Codec, data, model, figures, and then the folder that is shipped, out of the committed configs, which are made for a
card; docs/soundscript.md says what to ask for on two cores. Run again, it keeps what is finished and goes on.
"""

import collections
import concurrent.futures
import json
import math
import os
import pathlib
import shutil
import sys

import numpy as np
import safetensors
from box_sounds import CONVERSATIONS, hard_sounds, through_codec
from demo import claim, run, say, ualm

from ualm_jax.cli.arguments import Parser, integer, number, output_directory
from ualm_jax.codecs.xcodec.weights import read_directory, save_directory
from ualm_jax.data.raw.files import hash_directory
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript.benchmark import items
from ualm_jax.pretrained import load
from ualm_jax.weights.checksums import sha256_of
from ualm_jax.weights.converted import checked_files
from ualm_jax.weights.shipped import FOLDER

TOOLS = pathlib.Path(__file__).resolve().parent
HARD = pathlib.Path("sounds/hard")
CODEC = pathlib.Path("weights/codec")  # that all data is encoded with
OWN = pathlib.Path("weights/own-codes")  # the same, but for its decoder, which has learnt the model's own codes
SHIPPED = FOLDER / "soundscript"

DATA = {  # folder: task of SoundScript's second language, conversations
    "caption": ("caption_to_audio", 40_000),
    "enrich": ("enrich", 12_000),
    "dialogue": ("dialogue", 8_000),
    "imagine": ("imagine", 5_000),
    "text": ("text", 30_000),
    "describe": ("describe", 16_000),
    "question": ("question", 20_000),
    "listen": ("listen", 10_000),
    "reflect": ("reflect", 6_000),
    "critique": ("critique", 6_000),
}
ENCODER = "--layers 3 --width 128 --mlp-dim 384 --max-seconds 5 --no-normalize"
THROUGH_CODEC = {"listen": 6_000, "describe": 2_000, "question": 3_000, "critique": 5_000}
PARTS = ("sounds", "codec", "codes", "model", "longer", "own", "encoder", "give")
RUNS = ("decoder", "model", "longer", "encoder")  # folders of those that the card tells of
CARD = """\
# The small UALM of SoundScript

Makes the sounds that docs/soundscript.md describes from captions of them, plans them in words first if asked, listens,
describes what it hears, and answers questions about sounds and captions. {parameters:,} parameters and
{encoder:,} of its audio encoder in bfloat16, {codec:,} of the codec in float16.

Made by `make box` (tools/box.py) from configs/codec_small.py, codec_small_decoder.py, soundscript.py,
longer_soundscript.py and encoder_soundscript.py: the codec's decoder {decoder} steps, model {steps} steps of
{positions:,} positions, all but its encoder and adapter {longer} more of {longer_positions:,} positions, the decoder
on the model's own codes (tools/own_codes.py), then encoder and adapter {hearing} more on sounds as that leaves them.
Licence as ualm_jax; all data is generated.

Captions of the benchmark in docs/soundscript.md (`ualm eval soundscript`, guidance {guidance}, temperature
{temperature}), and what its program for hearing finds right in the same sounds through the codec alone:

| list | right | class | count | order | pitch | duration | gap | loudness |
|---|---|---|---|---|---|---|---|---|
{rows}

| parts of a caption | captions | right | class | count |
|---|---|---|---|---|
{parts}

Answers (`ualm eval answers`), {asked} of each kind about scenes that training never saw, and about combinations that
it never saw:

| task | new scenes | held-out combinations |
|---|---|---|
{answers}
"""
ANSWERS = ("describe", "question", "listen", "critique", "text", "enrich")  # tasks
SAMPLING = {"cfg_scale": 1.2, "temperature": 0.3}  # 59 % of 128 captions; guidance of 1 and 1.5 gave 56 and 55
TRACKS = ("class", "count", "order", "pitch", "duration", "gap", "loudness")


def main() -> None:
    parser = Parser("box.py", description=__doc__)
    parser.add_argument("--out", type=output_directory, default=pathlib.Path("box"), help="folder to work in (box)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts; default all, in turn")
    parser.add_argument("--data", type=number(above=0, at_most=1), default=1.0, help="share of all conversations (1)")
    parser.add_argument(
        "--codec", default="", help='more for `ualm codec train`, such as --codec="--config.train.steps=6000"'
    )
    parser.add_argument("--model", default="", help="more for `ualm train`")
    parser.add_argument("--own", default="", help="more for tools/own_codes.py")
    parser.add_argument("--limit", type=integer(at_least=2), default=64, help="captions of each list to judge (64)")
    args = parser.parse_args()
    try:
        box(args)
    except UserError as error:
        sys.exit(f"box.py: {error}")


def box(args) -> None:
    """Fills the folder `args.out`, then the package's. Raises UserError for a folder that holds something else."""
    claim(args.out)
    os.chdir(args.out)
    for part in args.only:
        say(part.capitalize())
        match part:
            case "sounds":
                sounds(args.data)
            case "codec":
                codec(args.data, args.codec)
            case "codes":
                codes()
            case "model":
                if not pathlib.Path("weights/soundscript").exists():
                    run(TOOLS / "random_encoder.py", "--out", "weights/soundscript", *ENCODER.split())
                ualm("train --config configs/soundscript.py --workdir model", args.model)
            case "longer":
                ualm("train --config configs/longer_soundscript.py --workdir longer", begin("model"), args.model)
            case "own":
                own_codes(args.data, args.own)
            case "encoder":
                encoder(args.data, args.model)
            case "give":
                give(args.limit)


def sounds(share: float) -> None:
    """Conversations and sounds of all folders at a time, as many processes as there are cores."""
    (cores, total), jobs = (os.cpu_count() or 1, sum(count for _, count in DATA.values())), []
    for name, (task, count) in DATA.items():
        if not pathlib.Path("sounds", name, "dataset.json").exists():
            words = f"--task {task} --count {max(int(share * count), 1)}"
            words += f" --workers {max(round(2 * cores * count / total), 1)} --sounds-only"
            jobs.append(f"data prepare --source soundscript --language 2 {words} --out sounds/{name}")
    together(jobs, cores)


def codec(share: float, words: str) -> None:
    """The codec, its decoder trained further, and that in float16, which encodes all data."""
    ualm("codec train --config configs/codec_small.py --workdir codec", words)
    hard_sounds(HARD, max(int(share * 8_000), 10))
    decoder = f"codec train --config configs/codec_small_decoder.py --config.data.folder={HARD}"
    phases = "--config.loss.phase=1.0 --config.optimizer.peak_lr=8e-4"
    phases += " --config.optimizer.decay_steps=6000 --config.train.steps=6000"
    ualm(decoder, "--workdir phases --config.train.init_from=codec/codec", phases, words)
    ualm(decoder, "--workdir decoder --config.train.init_from=phases/codec", words)
    halve(pathlib.Path("decoder/codec"), CODEC)


def halve(codec: pathlib.Path, out: pathlib.Path) -> None:
    """The same codec in float16."""
    if not out.exists():
        config, params = read_directory(codec)
        beside = out.with_name(f"{out.name}.new")
        save_directory(params, config, beside, np.float16)
        beside.rename(out)


def codes() -> None:
    """The codes of all sounds: as many folders at a time as there are cores, since the host has most of the work."""
    codec, jobs = made(CODEC, shipped=SHIPPED / "codec"), []
    for name in DATA:
        dataset = pathlib.Path("data/soundscript", name, "dataset.json")
        if not dataset.exists():
            jobs.append(f"data encode sounds/{name} --codec {codec} --out data/soundscript/{name}")
        elif json.loads(dataset.read_text())["made_from"]["codec"] != hash_directory(codec):
            raise UserError(f"{dataset.parent} was encoded by another codec; move data and longer away first")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # they share a GPU
    together(jobs, os.cpu_count() or 1)


def own_codes(share: float, words: str) -> None:
    """The decoder learns from codes that the model writes; what comes of it is shipped."""
    hard_sounds(HARD, max(int(share * 8_000), 10))
    if not pathlib.Path("own").exists():
        given = f"--model {made('longer', 'model', shipped=SHIPPED)} --sounds {HARD} --out own {words}"
        run(TOOLS / "own_codes.py", *given.split())
    halve(pathlib.Path("own"), OWN)


def encoder(share: float, words: str) -> None:
    """The model's encoder and adapter trained further, on sounds as the codec leaves them."""
    sounds = pathlib.Path("sounds/through-codec")
    counts = {task: max(int(share * count), 1) for task, count in THROUGH_CODEC.items()}
    through_codec(sounds, load(made(OWN, CODEC, shipped=SHIPPED / "codec")).codec, counts)
    data = pathlib.Path("data/soundscript/through-codec")
    if not (data / "dataset.json").exists():
        given = f"--source understanding --input {sounds / CONVERSATIONS} --root {sounds} --out {data}"
        tokenizer = made("longer", "model", shipped=SHIPPED) / "tokenizer"
        # It holds no codes, but stands beside data that does, and all of a mixture has to be of one codec.
        ualm("data prepare", given, f"--tokenizer {tokenizer} --codec {made(CODEC, shipped=SHIPPED / 'codec')}")
    ualm("train --config configs/encoder_soundscript.py --workdir encoder", begin("longer", "model"), words)


def made(*paths: str | pathlib.Path, shipped: pathlib.Path) -> pathlib.Path:
    """The first of `paths` that was made here, or else what is shipped."""
    return next((pathlib.Path(path) for path in paths if pathlib.Path(path).exists()), shipped)


def begin(*runs: str) -> str:
    """Words for `ualm train` to begin where the first of these runs ended that is here; without any, the config's,
    which name what is shipped."""
    run = next((run for run in runs if pathlib.Path(run).exists()), None)
    return "" if run is None else f"--config.train.init_from={run} --config.train.encoder={run}"


def together(jobs: list[str], most: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(most) as pool:
        list(pool.map(ualm, jobs))


def give(limit: int) -> None:
    """The shipped folder, of the last run of the model, and its card."""
    missing = [name for name in (*RUNS, "own") if not pathlib.Path(name, "config.json").exists()]
    if missing:
        raise UserError(f"the card tells of runs that are not here: {', '.join(missing)}; make those parts first")
    shipped = pathlib.Path("soundscript")
    for made_before in (shipped, pathlib.Path("eval")):
        shutil.rmtree(made_before, ignore_errors=True)
    ualm("convert export ours encoder --out", shipped, "--dtype bfloat16")
    shutil.rmtree(shipped / "codec")
    shutil.copytree(OWN, shipped / "codec")
    card = json.loads((shipped / "ualm.json").read_text())
    card["files"] = sha256_of(shipped, checked_files(shipped))
    card["source"] |= {"importer": "tools/box.py", "name": "soundscript", "sampling": SAMPLING}
    (shipped / "ualm.json").write_text(json.dumps(card, indent=2) + "\n")
    say("Figures")
    how = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in SAMPLING.items())
    ualm(f"eval soundscript --limit {limit} {how} --out eval --model", shipped, "--codec", shipped / "codec")
    asked = f"--task {' '.join(ANSWERS)} --split train combination --count {2 * limit}"
    ualm(f"eval answers {asked} --json answers.json --model", shipped)
    (shipped / "README.md").write_text(written(shipped, card))
    shutil.rmtree(SHIPPED, ignore_errors=True)
    shutil.copytree(shipped, SHIPPED)
    size = sum(path.stat().st_size for path in shipped.rglob("*") if path.is_file())
    say(f"{SHIPPED}: {size / 1e6:.1f} MB")


def stored(folder: pathlib.Path) -> int:
    """How many numbers its weights are."""
    with safetensors.safe_open(folder / "model.safetensors", "np") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())


def written(shipped: pathlib.Path, card: dict) -> str:
    """The model card, with what the runs and the report say."""
    report, made = (json.loads(pathlib.Path("eval", name).read_text()) for name in ("report.json", "made.json"))
    theirs, config, last, hearing = (json.loads(pathlib.Path(name, "config.json").read_text()) for name in RUNS)
    rows = []
    for name, table in report["tables"].items():
        values = [table["all"], *(table["tracks"].get(track) for track in TRACKS)]
        rows.append(f"| {name} | " + " | ".join("" if v is None else f"{v['value']:.0%}" for v in values) + " |")
    by_parts = {}
    plans = {item.id: item.plan for item in items()}
    for item in report["items"]:
        by_parts.setdefault(len(plans[item["id"]].parts), []).append(
            [item["right"], *map(item["tracks"].get, TRACKS[:2])]
        )
    parts = [
        f"| {count} | {len(found)} | "
        + " | ".join(f"{sum(map(bool, each)) / len(found):.0%}" for each in zip(*found, strict=True))
        + " |"
        for count, found in sorted(by_parts.items())
    ]
    found = collections.defaultdict(list)
    for item in json.loads(pathlib.Path("answers.json").read_text())["items"]:
        task, split, _ = item["id"].rsplit("-", 2)
        found[task, split].append(item["right"])
    shares = {key: f"{sum(each) / len(each):.0%}" for key, each in found.items()}
    answers = [f"| {task} | {shares[task, 'train']} | {shares[task, 'combination']} |" for task in ANSWERS]
    return CARD.format(
        parameters=card["parameters"],
        encoder=stored(shipped / "encoder"),
        codec=stored(shipped / "codec"),
        decoder=theirs["train"]["steps"],
        steps=config["train"]["steps"],
        hearing=hearing["train"]["steps"],
        longer=last["train"]["steps"],
        positions=config["data"]["batch_size"] * config["data"]["seq_len"],
        longer_positions=last["data"]["batch_size"] * last["data"]["seq_len"],
        guidance=made["cfg_scale"],
        temperature=made["temperature"],
        rows="\n".join(rows),
        parts="\n".join(parts),
        asked=len(found[ANSWERS[0], "train"]),
        answers="\n".join(answers),
    )


if __name__ == "__main__":
    main()
