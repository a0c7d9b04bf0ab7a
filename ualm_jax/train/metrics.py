"""Where metrics go: a line on the console, one JSON object a line in metrics.jsonl, and TensorBoard."""

import json
import pathlib
import time

import numpy as np
import tensorboardX

from ualm_jax.audio.spectrogram import spectrogram_image


class MetricWriter:
    """Writes scalars and sounds of a run into `workdir`; a resumed run appends."""

    def __init__(self, workdir: pathlib.Path):
        self._jsonl = open(workdir / "metrics.jsonl", "a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._jsonl.write(json.dumps({"step": step, **values}) + "\n")
        self._jsonl.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def sound(self, step: int, name: str, wav: np.ndarray, sample_rate: int) -> None:
        """A waveform [N] and its spectrogram."""
        self._board.add_audio(name, wav[:, None], step, sample_rate=sample_rate)
        self._board.add_image(f"{name}/spectrogram", spectrogram_image(wav, sample_rate), step, dataformats="HWC")

    def close(self) -> None:
        self._jsonl.close()
        self._board.close()


class Throughput:
    """Tokens per second and time to go; time spent in `pause` (checkpoints, evaluation) does not count."""

    def __init__(self):
        self._start = time.perf_counter()
        self._tokens = 0.0
        self._steps = 0

    def count(self, tokens: float) -> None:
        self._tokens += tokens
        self._steps += 1

    def rates(self) -> tuple[float, float]:
        """(tokens, steps) per second since the last call."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rates = self._tokens / seconds, self._steps / seconds
        self._start, self._tokens, self._steps = time.perf_counter(), 0.0, 0
        return rates

    def pause(self) -> "_Pause":
        return _Pause(self)


class _Pause:
    def __init__(self, clock: Throughput):
        self._clock = clock

    def __enter__(self):
        self._entered = time.perf_counter()

    def __exit__(self, *_):
        self._clock._start += time.perf_counter() - self._entered


def format_eta(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
