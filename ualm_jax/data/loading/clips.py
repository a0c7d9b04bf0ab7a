"""Waveforms to cut crops from: sounds of a folder, of a prepared dataset, or generated ones held in memory."""

import contextlib
import dataclasses
import logging
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Int16, Int64

from ualm_jax.audio.io import HIGHEST_PEAK
from ualm_jax.errors import UserError
from ualm_jax.parallel.workers import worker_pool
from ualm_jax.progress import Bar

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".opus")
_MARGIN = 0.02  # seconds read on both sides of a crop that is resampled, so that the filter finds its neighbours
_SHORTEST = 0.05  # seconds
_PER_TASK = 32  # sounds rendered at a time


@runtime_checkable
class Clips(Protocol):
    """Sounds at `sample_rate` with `channels` channels, of which any part can be read alone.

    lengths: samples of each. read: samples [start, stop) of one, float32 [N, C]; bounds lie inside the clip. It raises
    UserError where that clip can not be used after all. names: what to call them in messages.
    """

    sample_rate: int
    channels: int
    lengths: Int64[np.ndarray, " M"]

    def read(self, index: int, start: int, stop: int) -> Float32[np.ndarray, "N C"]: ...

    def name(self, index: int) -> str: ...

    def fingerprint(self) -> Any:
        """JSON-able, and different for clips of other content."""


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryClips:
    """Clips end to end in one array of 16-bit samples; ends: where each one ends."""

    sample_rate: int
    samples: Int16[np.ndarray, "S C"]
    ends: Int64[np.ndarray, " M"]
    origin: Any = None

    @property
    def channels(self) -> int:
        return self.samples.shape[1]

    @property
    def lengths(self) -> Int64[np.ndarray, " M"]:
        return np.diff(self.ends, prepend=0)

    def read(self, index: int, start: int, stop: int) -> Float32[np.ndarray, "N C"]:
        first = self.ends[index - 1] if index else 0
        return self.samples[first + start : first + stop].astype(np.float32) / 32768

    def name(self, index: int) -> str:
        return f"generated sound {index}"

    def fingerprint(self) -> Any:
        return self.origin


class FolderClips:
    """The sound files below `folder`, of any rate and number of channels, in the order of their paths.

    channels: 1 mixes every file down by its mean; 2 leaves files with fewer channels out and takes the first two of
    more. What can not be used is left out and counted by reason in `left_out`. Raises UserError where nothing is left.
    """

    def __init__(self, folder: str | os.PathLike, sample_rate: int, channels: int = 1, min_rate: int = 0):
        self.sample_rate, self.channels = sample_rate, channels
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{folder}: expected a folder of sounds, found none")
        paths = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        self.left_out: dict[str, list[str]] = {}
        found: list[tuple[Path, int, int]] = []
        for path in paths:
            reason, rate, frames = _examine(path, channels, min_rate)
            if reason:
                self.left_out.setdefault(reason, []).append(str(path))
            else:
                found.append((path, rate, frames))
        counted = ", ".join(f"{len(names)} {reason} (as {names[0]})" for reason, names in self.left_out.items())
        if not found:
            raise UserError(
                f"{folder}: expected sounds ({', '.join(SUFFIXES)}) of at least {_SHORTEST} s"
                f"{' in stereo' if channels == 2 else ''}, found {counted or 'no file of these'}"
            )
        if counted:
            log.warning("%s: %d sounds, left out: %s", folder, len(found), counted)
        self._files = found
        self.lengths = np.array([frames * sample_rate // rate for _, rate, frames in found], np.int64)

    def read(self, index: int, start: int, stop: int) -> Float32[np.ndarray, "N C"]:
        path, rate, frames = self._files[index]
        samples = read_part(path, path, (rate, frames), self.sample_rate, start, stop)
        return _mixed(samples, self.channels)

    def name(self, index: int) -> str:
        return str(self._files[index][0])

    def fingerprint(self) -> Any:
        files = [(str(path.relative_to(self.folder)), rate, frames) for path, rate, frames in self._files]
        return {"kind": "folder", "sample_rate": self.sample_rate, "channels": self.channels, "files": files}


def render_clips(source: Any, count: int, workers: int) -> MemoryClips:
    """The first `count` sounds of a `SoundSource`, made once by `workers` processes and held as 16-bit samples. A bar,
    or a line now and then, says how far it is."""
    tasks = [range(start, min(start + _PER_TASK, count)) for start in range(0, count, _PER_TASK)]
    parts = []
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(Bar("rendering", "{} of {} scenes".format, count))
        if workers <= 1 or len(tasks) == 1:
            _open_source(source)
            made = map(_render, tasks)
        else:
            pool = stack.enter_context(worker_pool(min(workers, len(tasks)), _open_source, source))
            made = pool.map(_render, tasks)
        for task, part in zip(tasks, made, strict=True):
            parts.append(part)
            bar.update(task.stop)
    lengths = [length for _, lengths in parts for length in lengths]
    samples = np.concatenate([samples for samples, _ in parts])
    origin = {"kind": "generated", "source": source.fingerprint(), "count": count}
    return MemoryClips(source[0].sample_rate, samples, np.cumsum(lengths, dtype=np.int64), origin)


_source: Any = None  # of a worker process


def _open_source(source: Any) -> None:
    global _source
    _source = source


def _render(indices: range) -> tuple[Int16[np.ndarray, "S C"], list[int]]:
    wavs = [_source[index].wav for index in indices]
    wavs = [wav[:, None] if wav.ndim == 1 else wav for wav in wavs]
    pieces = [np.clip(np.rint(wav * 32768), -32768, 32767).astype(np.int16) for wav in wavs]
    return np.concatenate(pieces), [len(piece) for piece in pieces]


def _examine(path: Path, channels: int, min_rate: int) -> tuple[str | None, int, int]:
    """Why a file can not be used (None: it can), its rate and its frames."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, TypeError, OSError):
        return "unreadable", 0, 0
    if info.frames < _SHORTEST * info.samplerate:
        return "too short", info.samplerate, info.frames
    if info.channels < channels:
        return "mono", info.samplerate, info.frames
    if info.samplerate < min_rate:
        return f"below {min_rate} Hz", info.samplerate, info.frames
    return None, info.samplerate, info.frames


def read_part(
    file: Any, name: str | os.PathLike, size: tuple[int, int], wanted: int, start: int, stop: int
) -> Float32[np.ndarray, "N C"]:
    """Samples [start, stop) at rate `wanted` of a sound file, all channels. size: its rate and frames. Raises UserError
    that begins with `name` where they can not be read."""
    rate, frames = size
    ratio = rate / wanted
    margin = 0 if rate == wanted else int(_MARGIN * rate)
    # Whole periods of both rates, so that samples of the crop lie where samples of the whole file would.
    step = rate // np.gcd(rate, wanted)
    first = max(0, (int(start * ratio) - margin) // step * step)
    last = min(frames, int(np.ceil(stop * ratio)) + margin)
    try:
        with soundfile.SoundFile(file) as sound:
            sound.seek(first)
            samples = sound.read(last - first, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{name}: not a readable sound file ({error})") from error
    if len(samples) < last - first:
        raise UserError(f"{name}: truncated, {last - first} samples due from {first} on but {len(samples)} found")
    if not np.isfinite(samples).all():
        raise UserError(f"{name}: has samples that are NaN or infinite")
    if (peak := float(np.abs(samples).max(initial=0.0))) > HIGHEST_PEAK:
        raise UserError(f"{name}: its samples reach {peak:g}, where full scale is 1; perhaps integers stored as floats")
    if rate != wanted:
        samples = soxr.resample(samples, rate, wanted, quality="HQ")
    skip = start - first * wanted // rate
    samples = samples[skip : skip + stop - start]
    # The resampler may end a sample early at the end of a file.
    return np.pad(samples, ((0, stop - start - len(samples)), (0, 0)))


def _mixed(samples: np.ndarray, channels: int) -> Float32[np.ndarray, "N C"]:
    if channels == 1:
        return samples.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(samples[:, :channels])
