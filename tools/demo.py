"""In minutes: a sound from the model in the box, then a new word for it, learnt on a mesh, and a sound for that.

make demo        or        python tools/demo.py --out demo

Run again, it keeps what is finished and goes on from there.
"""

import pathlib
import shlex
import signal
import subprocess
import sys
import time

from new_word import write_doorbells
from plot_run import plot_run

from ualm_jax.audio.io import read_audio
from ualm_jax.audio.spectrogram import save_spectrogram_png
from ualm_jax.cli.arguments import Parser, output_directory
from ualm_jax.errors import STOPPED, UserError
from ualm_jax.weights.shipped import located

PROMPT = "a snare, then a kick"
NEW = "a doorbell, then two clicks"
STEPS, STOP_AT = 60, 30
MARKER = ".made-by-demo"


def main() -> None:
    parser = Parser("demo.py", description=__doc__)
    parser.add_argument("--out", type=output_directory, default=pathlib.Path("demo"), help="folder to fill (demo)")
    try:
        demo(parser.parse_args().out)
    except UserError as error:
        sys.exit(f"demo.py: {error}")


def demo(out: pathlib.Path) -> None:
    """Fills the folder `out`. Raises UserError for a folder that holds something else."""
    claim(out)
    started = time.perf_counter()

    box = located("soundscript")
    say(f"1/4  The model in the box: {PROMPT!r}")
    ualm("generate --model soundscript", [PROMPT], "--out", out / "first.wav")

    say("2/4  Sounds for a word that it never saw: a doorbell")
    if (out / "data" / "dataset.json").exists():
        print(f"{out / 'data'} is there already")
    else:
        manifest = write_doorbells(out / "sounds", 100)
        parts = ["--tokenizer", box / "tokenizer", "--codec", box / "codec"]
        ualm("data prepare --source manifest --input", manifest, *parts, "--out", out / "data")

    train = ["train --config configs/soundscript.py --devices 8 --workdir", out / "run"]
    train += ["--config.train.init_from=soundscript --config.data.sources=()"]
    train += [[f"--config.data.directory={out / 'data'}"], f"--config.train.steps={STEPS} --config.train.log_every=10"]
    train += ["--config.data.seq_len=256 --config.data.batch_size=8 --config.mesh.data=2 --config.mesh.fsdp=4"]
    train += ["--config.optimizer.schedule=constant --config.optimizer.warmup_steps=5 --config.optimizer.peak_lr=1e-3"]
    train += [
        "--config.eval.prompts=()",
        [f"--config.train.encoder={box / 'encoder'}", "--config.train.trainable=('*',)"],
    ]
    train += ["--config.data.audio_slots=1"]
    if not any((out / "run" / "checkpoints").glob("[0-9]*")):
        say("3/4  It learns the word on a virtual mesh of 8 devices (data 2 x fsdp 4), stopped half way by Ctrl-C")
        ualm(*train, interrupt_after=f"step {STOP_AT}/")
    say("3/4  The same command goes on where it stopped")
    ualm(*train)

    say(f"4/4  {NEW!r}")
    ualm("generate --model", out / "run", [NEW], "--out", out / "generated.wav")

    plot_run(out / "run", out / "loss.png")
    for name, caption in (("first", PROMPT), ("generated", NEW)):
        wav = read_audio(out / f"{name}.wav", sample_rate=16000)
        save_spectrogram_png(out / f"{name}.png", wav, 16000, caption)
    say(
        f"Done in {time.perf_counter() - started:.0f} s. Listen to {out / 'first.wav'} and {out / 'generated.wav'}; "
        f"{out / 'first.png'}, {out / 'generated.png'} and {out / 'loss.png'} show them and the training.\n"
        f"To try the commands yourself: . {pathlib.Path(sys.prefix) / 'bin' / 'activate'}"
    )


def claim(out: pathlib.Path) -> None:
    """Makes the folder and marks it as the demo's. Raises UserError where it holds what the demo has not made."""
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / MARKER).exists():
        raise UserError(f"{out} holds files that this program has not made; choose another folder with --out")
    (out / MARKER).touch()


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def ualm(*words, interrupt_after: str | None = None) -> None:
    """Runs `ualm`; a string is many arguments, a list as many as it has."""
    arguments = []
    for word in words:
        arguments += word if isinstance(word, list) else word.split() if isinstance(word, str) else [str(word)]
    print("$ ualm", shlex.join(arguments), flush=True)
    run("-m", "ualm_jax.cli.main", *arguments, interrupt_after=interrupt_after)


def run(*arguments, interrupt_after: str | None = None) -> None:
    """Runs Python, shows what it prints, and sends Ctrl-C when a line starts with `interrupt_after`."""
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if interrupt_after and line.startswith(interrupt_after):
                process.send_signal(signal.SIGINT)
    if process.returncode and not (interrupt_after and process.returncode == STOPPED):
        sys.exit(process.returncode)


if __name__ == "__main__":
    main()
