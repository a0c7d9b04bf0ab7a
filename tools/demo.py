"""The whole thread in minutes: captioned sounds, shards, sharded training stopped and resumed, a wav from a caption.

make demo        or        python tools/demo.py --out demo

Run again, it keeps what is finished and goes on from there.
"""

import pathlib
import shlex
import signal
import subprocess
import sys
import time

from plot_run import plot_run

from ualm_jax.audio.io import read_audio
from ualm_jax.audio.spectrogram import save_spectrogram_png
from ualm_jax.cli.arguments import Parser, output_directory
from ualm_jax.errors import UserError

PROMPT = "Three short clicks, then a low tone."
STEPS, STOP_AT = 200, 100
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

    say("1/4  Captioned sounds, encoded once")
    if (out / "data" / "dataset.json").exists():
        print(f"{out / 'data'} is there already")
    else:
        ualm("data prepare --source soundscript --count 192 --max-seconds 2 --out", out / "data")

    train = ["train --config configs/tiny.py --devices 8 --workdir", out / "run"]
    train += [[f"--config.data.directory={out / 'data'}"], f"--config.train.steps={STEPS}"]
    train += [f"--config.optimizer.decay_steps={STEPS} --config.eval.every={STEPS} --config.data.batch_size=4"]
    train += ["--config.mesh.data=2 --config.mesh.fsdp=2 --config.mesh.tensor=2"]
    if not any((out / "run" / "checkpoints").glob("[0-9]*")):
        say("2/4  Training on a virtual mesh of 8 devices (data 2 x fsdp 2 x tensor 2), stopped half way by Ctrl-C")
        ualm(*train, interrupt_after=f"step {STOP_AT}/")
    say("3/4  The same command goes on where it stopped")
    ualm(*train)

    say(f"4/4  A sound for the caption {PROMPT!r}")
    wav = out / "generated.wav"
    ualm("generate --seconds 3 --workdir", out / "run", "--out", wav, "--prompt", [PROMPT])

    plot_run(out / "run", out / "loss.png")
    save_spectrogram_png(out / "generated.png", read_audio(wav, sample_rate=16000), 16000, PROMPT)
    say(
        f"Done in {time.perf_counter() - started:.0f} s. Listen to {wav}, look at {out / 'loss.png'} and "
        f"{out / 'generated.png'}.\nThe codec has random weights: the tokens are real and were learnt, but what they "
        "decode to is no music.\nTo try the commands yourself: "
        f". {pathlib.Path(sys.prefix) / 'bin' / 'activate'}"
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
    """Runs `ualm`, shows what it prints, and sends Ctrl-C when a line starts with `interrupt_after`."""
    arguments = []
    for word in words:
        arguments += word if isinstance(word, list) else word.split() if isinstance(word, str) else [str(word)]
    command = [sys.executable, "-m", "ualm_jax.cli.main", *arguments]
    print("$ ualm", shlex.join(arguments), flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if interrupt_after and line.startswith(interrupt_after):
                process.send_signal(signal.SIGINT)
    if process.returncode:
        sys.exit(process.returncode)


if __name__ == "__main__":
    main()
