"""Sound files to float32 mono waveforms, plus their loudness. audio/write.py goes the other way."""

import errno
import io
import math
import os
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Float32

from ualm_jax.audio.sound_file import find_streams
from ualm_jax.audio.stream import Damaged, Stream
from ualm_jax.errors import UserError

LONGEST = 3600  # seconds that are read at once
_RATES = range(1000, 768_001)  # Hz; other rates are mistakes, and resampling would make gigabytes of little
_ROUNDING = 0.005  # seconds that a segment may end after the end of its file
HIGHEST_PEAK = 16.0  # times full scale: 24 dB above it
_BLOCK = 1 << 18  # samples decoded at once, of all channels together
_UNKNOWN = 1 << 62  # libsndfile gives this or more where it does not know a length
_GATING_BLOCK = 0.4  # seconds; ITU-R BS.1770


class BadAudio(UserError):
    """This sound can not be read or written; the message says in one sentence which file and why."""


def read_audio(
    path: str | os.PathLike,
    *,
    sample_rate: int,
    start: float = 0.0,
    end: float | None = None,
    file: io.IOBase | None = None,
) -> Float32[np.ndarray, "N"]:
    """The segment [start, end) in seconds of a sound file, mono, at `sample_rate` Hz.

    `file`: an open, seekable file to read instead; `path` is then its name in messages. Formats: wav (also RF64 and
    W64), flac, ogg (Vorbis, Opus), mp3, aiff, au, caf and NIST. Channels are mixed by their mean, then resampled with
    soxr's HQ recipe; the same file always gives the same samples.

    Decoding in blocks shows how long a sound is; what its header says only counts as a promise that can be broken.
    Sounds that follow each other in one file are read as one. A segment may end up to 5 ms after its file, which is
    taken for rounding.

    Raises BadAudio: missing, unreadable, damaged or truncated file; a segment that is empty, outside the file or longer
    than an hour; samples that are NaN, infinite or far above full scale. Raises UserError where this process may not
    open more files, which is not the sound's fault.
    """
    try:
        if file is not None:
            return _read(file, sample_rate, start, end)
        if not os.path.isfile(path):
            raise Damaged("there is no such file")
        with open(path, "rb") as file:
            return _read(file, sample_rate, start, end)
    except Damaged as error:
        raise BadAudio(f"{path}: {error}") from error
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip(" .") or f"libsndfile error {error.code}"
        raise BadAudio(f"{path}: not a readable sound file ({reason})") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise UserError(
                f"{path}: can not be opened, too many files are open; raise the limit (ulimit -n) and run again"
            ) from error
        raise BadAudio(f"{path}: can not be read ({error.strerror or error})") from error


class _Decoder(soundfile.SoundFile):
    """Reads on and on. A seekable SoundFile seeks after every block, which fails where the length is not known."""

    def seekable(self) -> bool:
        return False

    def decode(self, count: int) -> Float32[np.ndarray, "_ C"] | None:
        """Up to `count` samples; none at the end, None where the decoder loses its way."""
        try:
            return self.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            return None


def _read(file: io.IOBase, sample_rate: int, start: float, end: float | None) -> Float32[np.ndarray, "N"]:
    streams = find_streams(file)
    with _Decoder(streams[0].content) as sound:
        rate = sound.samplerate
    if rate not in _RATES:
        raise Damaged(f"its header says {rate} Hz, expected {_RATES.start} to {_RATES.stop - 1} Hz")
    first, stop = round(start * rate), None if end is None else round(end * rate)
    if stop is not None and stop <= first:
        raise Damaged(f"no samples between {start:g} s and {end:g} s")
    resample = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ").resample_chunk
    parts, count = [], 0
    for block in _blocks(streams, rate, first, stop):
        if not np.isfinite(block).all():
            raise Damaged(f"sample {first + count + int(np.argmin(np.isfinite(block)))} is NaN or infinite")
        if (peak := float(np.abs(block).max())) > HIGHEST_PEAK:
            raise Damaged(f"its samples reach {peak:g}, where full scale is 1; perhaps integers stored as floats")
        count += len(block)
        if count > LONGEST * rate:
            raise Damaged(f"longer than {LONGEST} s, which is the most that is read at once; cut it")
        parts.append(block if rate == sample_rate else resample(block))
    if count == 0:
        raise Damaged(f"no samples between {start:g} s and {first / rate if end is None else end:g} s")
    if rate != sample_rate:
        parts.append(resample(np.zeros(0, np.float32), last=True))
    mono = np.concatenate(parts)
    if len(mono) == 0:
        raise Damaged(f"the segment is too short to give one sample at {sample_rate} Hz")
    return mono


def _blocks(streams: list[Stream], rate: int, first: int, stop: int | None) -> Iterator[Float32[np.ndarray, "_"]]:
    """Samples `first` to `stop` (None: the end) of all streams in a row, mono. Raises Damaged for a gap."""
    before = 0  # samples of the streams that have been passed
    last = stop if first >= 0 else None  # an error names the length of the file, which must be found out
    for stream in streams:
        stream.content.seek(0)
        with _Decoder(stream.content) as sound:
            if sound.samplerate != rate:
                raise Damaged(f"it holds sounds of {rate} Hz and of {sound.samplerate} Hz, one after the other")
            due = stream.samples or stream.promised or (sound.frames if sound.frames < _UNKNOWN else None)
            if due is not None and first - before > due:
                before += due
                continue
            position = 0
            if due is not None and first > before:
                position = sound.seek(max(0, min(first - before - stream.settling, due - stream.unseekable)))
            while last is None or before + position < last:
                count = max(1, _BLOCK // sound.channels)
                count = count if due is None else min(count, due - position)
                samples = sound.decode(count if last is None else min(count, last - before - position))
                if samples is None or len(samples) == 0:
                    break
                passed = max(0, first - before - position)
                position += len(samples)
                if passed < len(samples):
                    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is found later
                        yield samples[passed:].mean(axis=1)
            else:
                return
            _check_end(sound, stream, position, due, lost=samples is None)
            before += position
    if not 0 <= first <= before or (stop is not None and stop - before > _ROUNDING * rate):
        wanted = f"{first / rate:g} s to {'the end' if stop is None else f'{stop / rate:g} s'}"
        raise Damaged(f"the segment {wanted} is outside the file, which lasts {before / rate:g} s")


def _check_end(sound: _Decoder, stream: Stream, position: int, due: int | None, *, lost: bool) -> None:
    """Whether `sound`, decoded to its end at `position`, is all there. lost: the decoder gave up instead of ending."""
    if due is None and lost:
        raise Damaged(f"damaged or truncated, its decoder loses its way after {position} samples")
    if due is not None and position < due:
        raise Damaged(f"truncated or damaged, {due} samples are due but only {position} can be decoded")
    if stream.promised is not None and (more := sound.decode(1)) is not None and len(more) > 0:
        raise Damaged(f"its header promises {due} samples, but more are there")


def loudness(wav: Float[np.ndarray, "N"] | Float[np.ndarray, "N C"], sample_rate: int) -> float:
    """Integrated loudness in LUFS, ITU-R BS.1770-4; -inf where every block is below the gate of -70 LUFS.

    The standard's block lasts 0.4 s; a shorter sound is measured as one block of its own length.
    """
    if len(wav) == 0:
        raise ValueError("loudness of no samples")
    block = min(_GATING_BLOCK, len(wav) / sample_rate)
    import pyloudnorm  # brings scipy.signal, which takes a second, and few who read sounds need it

    # A quotient can round up to more samples than there are; one ulp less never does.
    meter = pyloudnorm.Meter(sample_rate, block_size=math.nextafter(block, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(meter.integrated_loudness(wav.astype(np.float64)))
