"""The whole thread in minutes: captioned sounds, shards, sharded training stopped and resumed, a wav from a caption.

make demo        or        python tools/demo.py --out demo
"""

import argparse
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from plot_run import plot_run

from ualm_jax.audio.io import read_audio
from ualm_jax.audio.spectrogram import save_spectrogram_png

PROMPT = "Three short clicks, then a low tone."
STEPS, STOP_AT = 200, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo"))
    out = parser.parse_args().out
    started = time.perf_counter()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    say("1/4  Captioned sounds, encoded once")
    ualm("data prepare --source soundscript --count 192 --max-seconds 2 --out", out / "data")

    say("2/4  Training on a virtual mesh of 8 devices (data 2 x fsdp 2 x tensor 2), stopped half way by Ctrl-C")
    train = ["train --config configs/tiny.py --devices 8 --workdir", out / "run"]
    train += [f"--config.data.directory={out / 'data'} --config.train.steps={STEPS}"]
    train += [f"--config.optimizer.decay_steps={STEPS} --config.eval.every={STEPS} --config.data.batch_size=4"]
    train += ["--config.mesh.data=2 --config.mesh.fsdp=2 --config.mesh.tensor=2"]
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
        "decode to is no music."
    )


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def ualm(*words, interrupt_after: str | None = None) -> None:
    """Runs `ualm`, shows what it prints, and sends Ctrl-C when a line starts with `interrupt_after`."""
    arguments = []
    for word in words:
        arguments += word if isinstance(word, list) else str(word).split()
    command = [sys.executable, "-m", "ualm_jax.cli.main", *arguments]
    print("$ ualm", " ".join(arguments), flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if interrupt_after and line.startswith(interrupt_after):
                process.send_signal(signal.SIGINT)
    if process.returncode:
        sys.exit(process.returncode)


if __name__ == "__main__":
    main()
