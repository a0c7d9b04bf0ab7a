"""Where metrics go: metrics.jsonl, one JSON object a line, and TensorBoard."""

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from ualm_jax.audio.spectrogram import spectrogram_image
from ualm_jax.buckets import Folder, Spool, in_bucket


def _tensorboard() -> ModuleType:
    """tensorboardX without PyTorch. Where that is installed it would be imported, seconds of every start, for the name
    of a type."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # importing it fails, as where it is not installed
    try:
        import tensorboardX
    finally:
        if absent:
            del sys.modules["torch"]
    return tensorboardX


tensorboardX = _tensorboard()


class MetricWriter:
    """Writes scalars and sounds of a run into `workdir`. Of a step there is one line, whatever adds to it and when.

    workdir: None writes nothing; of many processes one writes. In a bucket, what was written arrives with `flush`.
    step: where the run begins or goes on. What was written of later steps is removed: they will be done again.
    """

    def __init__(self, workdir: Folder | None, step: int = 0):
        self._workdir, self._step = workdir, step
        self._spool = self._jsonl = self._board = None

    def _open(self) -> None:
        """At the first write: a start that is refused changes no file."""
        self._spool = Spool(self._workdir)
        path = self._spool.bring("metrics.jsonl")
        rows = [row for row in read_metrics(path) if row["step"] <= self._step]
        lines = [_line(row) for row in rows]
        beside = path.with_name(".metrics.jsonl.partial")
        beside.write_bytes(b"".join(lines))
        os.replace(beside, path)
        self._last: dict[str, Any] = rows[-1] if rows else {}
        self._start = sum(map(len, lines[:-1]))  # of the last line
        self._jsonl = open(path, "r+b")
        self._purged = {"purge_step": self._step + 1} if self._step else {}

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self._workdir is None:
            return
        if self._spool is None:
            self._open()
        if self._last.get("step") == step:
            self._jsonl.seek(self._start)
            self._last |= values
        else:
            self._start = self._jsonl.seek(0, os.SEEK_END)
            self._last = {"step": step, **values}
        self._jsonl.write(_line(self._last))
        self._jsonl.truncate()
        self._jsonl.flush()
        board = self._tensorboard(step)
        for name, value in values.items():
            board.add_scalar(name, value, step)

    def sound(self, step: int, name: str, wav: np.ndarray, sample_rate: int) -> None:
        """A waveform, [N] or [N, C], and its spectrogram."""
        if self._workdir is None:
            return
        if self._spool is None:
            self._open()
        channels = wav.reshape(len(wav), -1)
        picture = spectrogram_image(channels.mean(axis=1), sample_rate)
        board = self._tensorboard(step)
        board.add_audio(name, channels, step, sample_rate=sample_rate)
        board.add_image(f"{name}/spectrogram", picture, step, dataformats="HWC")

    def file(self, name: str) -> pathlib.Path:
        """Where to write another file of the run, such as "samples/one.wav"."""
        if self._spool is None:
            self._open()
        path = self._spool.here / name
        path.parent.mkdir(exist_ok=True)
        return path

    def flush(self) -> None:
        """Brings what was written to `workdir` where that is a bucket; on this machine it is there already."""
        if self._spool is not None and in_bucket(self._workdir):
            if self._board is not None:  # TensorBoard's files go there once each, and the next is begun
                self._board.close()
                self._board = None
            self._spool.send()

    def close(self) -> None:
        self.flush()
        if self._spool is not None:
            self._jsonl.close()
        if self._board is not None:
            self._board.close()

    def _tensorboard(self, step: int) -> Any:
        if self._board is None:
            self._board = tensorboardX.SummaryWriter(
                str(self._spool.here / "tensorboard"), filename_suffix=f".{step}", **self._purged
            )
            self._purged = {}
        return self._board


def read_metrics(path: Folder) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, one a step, in order. What a killed run wrote twice, or half, is mended."""
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the line that a killed process was writing
        rows[row["step"]] = rows.get(row["step"], {}) | row
    return [rows[step] for step in sorted(rows)]


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()


class Throughput:
    """Steps, and amounts of what they did, per second. Time in `pause` does not count; that in `wait` does, and is told
    beside."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self._start, self._amounts, self._steps, self._waited = time.perf_counter(), {}, 0, 0.0

    def count(self, amounts: dict[str, float]) -> None:
        """One more step."""
        self._steps += 1
        for name, amount in amounts.items():
            self._amounts[name] = self._amounts.get(name, 0.0) + amount

    def rates(self) -> tuple[float, float, dict[str, float]]:
        """Seconds per step, those of them in `wait`, and amounts per second, since the last call; 0 and none where no
        step was counted."""
        seconds, steps = max(time.perf_counter() - self._start, 1e-9), max(self._steps, 1)
        per_step = seconds / steps if self._steps else 0.0
        found = per_step, self._waited / steps, {name: amount / seconds for name, amount in self._amounts.items()}
        self.restart()
        return found

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        entered = time.perf_counter()
        yield
        self._start += time.perf_counter() - entered

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        entered = time.perf_counter()
        yield
        self._waited += time.perf_counter() - entered


def format_eta(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
