"""The whole thread on this machine, as a user would walk it: prepare data, train, stop, go on, make a sound."""

import argparse
import collections
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from ualm_jax.audio.io import read_audio
from ualm_jax.bench.result import Bars, BenchResult, number, text
from ualm_jax.errors import STOPPED, UserError
from ualm_jax.weights.shipped import located

_CAPTION = "two claps, then a low tone"


def run(args: argparse.Namespace) -> BenchResult:
    """A row per command of `ualm`, each a process of its own, from the start of Python on.

    The model in the package learns from `count` sounds for `steps` steps, stopped by Ctrl-C after a quarter. Raises
    UserError where a command fails, where the run does not go on from where it stopped, and where no sound comes out.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        out, box = pathlib.Path(folder), located("soundscript")
        prepare = ["data", "prepare", "--source", "soundscript", "--count", str(args.count), "--max-seconds", "2.5"]
        prepare += ["--tokenizer", str(box / "tokenizer"), "--codec", str(box / "codec"), "--out", str(out / "data")]
        train = ["train", "--config", "configs/soundscript.py", "--workdir", str(out / "run")]
        train += ["--config.train.init_from=soundscript", "--config.data.sources=()", "--config.eval.prompts=()"]
        train += [f"--config.train.encoder={box / 'encoder'}", "--config.train.trainable=('*',)"]
        train += [f"--config.data.directory={out / 'data'}", f"--config.train.steps={args.steps}"]
        train += ["--config.train.log_every=1", "--config.data.seq_len=256", "--config.data.batch_size=8"]
        generate = ["generate", "--model", str(out / "run"), _CAPTION, "--out", str(out / "sound.wav")]
        stop_at = max(1, args.steps // 4)
        rows.append(_timed("prepare", prepare))
        rows.append(_timed("train, then Ctrl-C", train, stop_at=stop_at))
        stopped = _steps(out / "run")[-1]
        rows.append(_timed("train, going on", train))
        steps = _steps(out / "run")
        if not stopped < args.steps or steps != list(range(1, args.steps + 1)):
            raise UserError(
                f"The run was told to stop at step {stop_at} of {args.steps}, stopped at {stopped} and ended at "
                f"{steps[-1]}; expected every step once, some of them after the stop."
            )
        rows.append(_timed("generate", generate))
        wav = read_audio(out / "sound.wav", sample_rate=16000)
        if not len(wav) or not np.isfinite(wav).all():
            raise UserError("No sound came out of the trained model.")
    return BenchResult(
        title=f"from data to a sound: {args.count} sounds, {args.steps} steps, stopped after {stopped}, resumed, "
        f"{len(wav) / 16000:.1f} s of sound",
        columns=(text("command", "command"), number("seconds", "s", ",.1f")),
        rows=rows,
        notes=("each command is a process of its own and counts from the start of Python on",),
        bars=(Bars("seconds", {row["command"]: row["seconds"] for row in rows}),),
    )


def _steps(workdir: pathlib.Path) -> list[int]:
    """Steps that a run has logged, in order."""
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _timed(name: str, words: list[str], stop_at: int | None = None) -> dict[str, Any]:
    """Runs `ualm`, with Ctrl-C once it has logged step `stop_at`. Raises UserError where it fails."""
    command, begun = [sys.executable, "-m", "ualm_jax.cli.main", *words], time.perf_counter()
    said = collections.deque(maxlen=5)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as process:
        for line in process.stdout:
            said.append(line.strip())
            if stop_at is not None and line.startswith(f"step {stop_at}/"):
                process.send_signal(signal.SIGINT)
    if process.returncode != (0 if stop_at is None else STOPPED):
        raise UserError(f"`ualm {' '.join(words[:2])} ...` failed: {' '.join(said)}")
    seconds = time.perf_counter() - begun
    print(f"{name}: {seconds:.1f} s", flush=True)  # known even where the next command hangs
    return {"command": name, "seconds": seconds}
