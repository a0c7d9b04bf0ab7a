"""Everything worth knowing of a card in a few minutes: parts of `ualm bench`, each in a process of its own.

The most important part comes first. What a part found lies in a file of its own as soon as it ends, and `card.json`
says how each ended, so that a part that fails, hangs or takes the device down costs its own figures and no others.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ualm_jax.bench import machine

SUMMARY = "card.json"
_LEAST_SECONDS = 10.0  # that a part must have left to be begun at all
_GRACE_SECONDS = 5.0  # between being asked to end and being ended
_SAID = 15  # last lines of a part that are kept where it fails


@dataclasses.dataclass(frozen=True)
class Part:
    """name: also of its files. words: of `ualm bench`. seconds: the most it may take. traced: its kernels are, too."""

    name: str
    words: Sequence[str]
    seconds: int
    traced: bool = False


def plan(size: str) -> list[Part]:
    """The parts, the most important first. size: "full", for a card of 80 GB or more, or "tiny", for any machine."""
    parts = _tiny() if size == "tiny" else _full()
    if all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers")):
        return parts
    return [part for part in parts if "torch" not in part.words]


def _full() -> list[Part]:
    model = "--size 1.5b --dtype bfloat16"
    rows = f"{model} --length 4096 --rows 4"
    # Attention of ours trains, since a bare image has no tokamax; 256 steps, as earlier figures have.
    step, decode = f"train {rows} --documents 8 --attention pallas --steps 10", f"decode {model} --steps 256"
    return [
        _part("machine", "machine", 60),
        _part("train-1.5b-dots", f"{step} --remat dots", 80, traced=True),
        _part("decode-1.5b", f"{decode} --batch 1 64", 120, traced=True),
        _part("decode-1.5b-kernel", f"{decode} --batch 1 64 --decode-attention pallas", 120, traced=True),
        _part("end-to-end", "end-to-end", 100),
        _part("train-1.5b-unrolled", f"{step} --remat dots --unroll", 120),
        _part("codec", "codec --batch 1 16 --repeats 3", 80),
        _part("attention", f"attention {rows} --documents 8 mixture 1 --repeats 10", 75),
        _part("train-1.5b-fp8", f"{step} --remat dots --unroll --products fp8", 120),
        _part("decode-1.5b-int8", f"{decode} --batch 1 64 --int8", 120),
        _part("loss", f"loss {rows}", 60, traced=True),
        _part("train-1.5b", f"{step} --remat save_attention", 80, traced=True),
        _part("train-7b", f"{step.replace('1.5b', '7b')} --remat full --params bfloat16", 90),
        _part("train-0.5b", f"{step.replace('1.5b', '0.5b')} --remat dots", 60),
        _part("serve", f"serve {model} --concurrency 1 16 --requests 4 --prompts 32", 90),
        _part("torch-train", f"{step} --remat save_attention --against torch", 120),
        _part("torch-decode", f"decode {model} --steps 200 --repeats 2 --against torch", 150),
        _part("torch-attention", f"attention {rows} --documents 8 --against torch", 80),
    ]


def _tiny() -> list[Part]:
    model = "--size tiny"
    rows = f"{model} --rows 1 --length 256"
    return [
        _part("machine", "machine", 60),
        _part("attention", f"attention {rows} --documents 2 --repeats 3", 60, True),
        _part("train-tiny", f"train {rows} --documents 2 --steps 3", 90, True),
        _part("decode-tiny", f"decode {model} --steps 16 --repeats 2", 90),
        _part("loss", f"loss {rows} --repeats 2", 60),
        _part("end-to-end", "end-to-end --count 12 --steps 8", 240),
        _part("decode-tiny-int8", f"decode {model} --steps 16 --repeats 2 --int8", 90),
        _part("torch-train", f"train {rows} --steps 2 --against torch", 120),
    ]


def _part(name: str, words: str, seconds: int, traced: bool = False) -> Part:
    return Part(name, words.split(), seconds, traced)


def run(
    parts: Sequence[Part],
    folder: pathlib.Path,
    seconds: float,
    command: Sequence[str] = (sys.executable, "-m", "ualm_jax.cli.main", "bench"),
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Runs the parts in turn, `seconds` in all; what became of each, as `card.json` has it.

    folder: gets `card.json`, written anew after each part, and of each part NAME.json and NAME.log.
    command: what `Part.words` and the names of its files are handed to.
    """
    begun = time.monotonic()
    found: list[dict[str, Any]] = []
    for part in parts:
        left = seconds - (time.monotonic() - begun)
        entry = {"name": part.name, "words": list(part.words), "limit_seconds": part.seconds}
        if left < min(_LEAST_SECONDS, part.seconds):
            entry |= {"status": "not begun", "said": [f"the {seconds:g} s for all parts were over"]}
        else:
            say(f"{part.name}: ualm bench {' '.join(part.words)}")
            entry |= _run_part(part, folder, min(left, float(part.seconds)), command)
        taken = f", {entry['seconds']:.0f} s" if "seconds" in entry else ""
        say(f"{part.name}: {entry['status']}{taken}")
        found.append(entry)
        _write(folder, {"machine": machine.host(), "seconds": seconds, "parts": found})
    return found


def _run_part(part: Part, folder: pathlib.Path, limit: float, command: Sequence[str]) -> dict[str, Any]:
    figures, log, traces = folder / f"{part.name}.json", folder / f"{part.name}.log", folder / f"{part.name}.trace"
    figures.unlink(missing_ok=True)
    words = [*command, *part.words, "--json", str(figures), *(["--profile", str(traces)] if part.traced else [])]
    begun = time.monotonic()
    with log.open("wb") as output:
        # A session of its own, so that whatever the part has started ends with it.
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = "done" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            _end(process)
    shutil.rmtree(traces, ignore_errors=True)  # hundreds of megabytes, of which the figures hold a summary
    entry = {
        "status": status,
        "seconds": time.monotonic() - begun,
        "figures": figures.name if figures.exists() else None,
    }
    if status == "failed":
        entry["exit_status"] = process.returncode
    if status != "done":
        entry["said"] = log.read_text(errors="replace").splitlines()[-_SAID:]
    return entry


def _end(process: subprocess.Popen) -> None:
    """Ends whatever is left of the session of `process`, by force where asking does not help."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        if process.poll() is None and number == signal.SIGTERM:
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    process.wait()


def _write(folder: pathlib.Path, summary: dict[str, Any]) -> None:
    """Beside, then in place: whoever reads it, or ends this, never meets half of it."""
    beside = folder / f"{SUMMARY}.new"
    beside.write_text(json.dumps(summary, indent=2) + "\n")
    beside.rename(folder / SUMMARY)
