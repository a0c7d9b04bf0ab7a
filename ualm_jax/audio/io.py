"""Sound files to float32 mono waveforms and back, plus their loudness."""

import io
import logging
import math
import os
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Float32

from ualm_jax.errors import UserError

_PEAK_LIMIT = 0.999  # of full scale: what 16-bit rounding can still hold without clipping
_LENGTH_UNKNOWN = 0x7FFFF000  # writers that stream put this or more where the length belongs
_OGG_PAGE_LIMIT = 65_307  # bytes
_GATING_BLOCK = 0.4  # seconds; ITU-R BS.1770

log = logging.getLogger(__name__)


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

    `file`: an open, seekable file to read instead; `path` is then its name in messages. Only the segment is
    decoded. Channels are mixed by their mean, then resampled with soxr's HQ recipe; the same file always gives the
    same samples. Anything libsndfile reads will do (wav, flac, ogg, mp3, ...).

    Raises BadAudio: missing, unreadable or truncated file, segment that is empty or outside the file,
    samples that are NaN or infinite.
    """
    if file is None:
        if not os.path.isfile(path):
            raise BadAudio(f"{path}: there is no such file")
        with open(path, "rb") as file:
            return read_audio(path, sample_rate=sample_rate, start=start, end=end, file=file)
    try:
        with soundfile.SoundFile(file) as sound:
            _check_whole(path, file, sound)
            rate, total = sound.samplerate, sound.frames
            first = round(start * rate)
            stop = total if end is None else round(end * rate)
            if not 0 <= first <= total or stop > total:
                wanted = f"{start:g} s to {'the end' if end is None else f'{end:g} s'}"
                raise BadAudio(f"{path}: the segment {wanted} is outside the file, which lasts {total / rate:g} s")
            if stop <= first:
                raise BadAudio(f"{path}: no samples between {start:g} s and {stop / rate:g} s")
            sound.seek(first)
            samples = sound.read(stop - first, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw, which has no header
        reason = getattr(error, "error_string", str(error)).strip(" .")
        raise BadAudio(f"{path}: not a readable sound file ({reason})") from error
    if len(samples) < stop - first:
        raise BadAudio(f"{path}: truncated, {stop - first} samples due from {start:g} s on but {len(samples)} found")
    if not np.isfinite(samples).all():
        bad = first + int(np.argmin(np.isfinite(samples).all(axis=1)))
        raise BadAudio(f"{path}: sample {bad} is NaN or infinite")
    mono = soxr.resample(samples.mean(axis=1), rate, sample_rate, quality="HQ")
    if len(mono) == 0:
        raise BadAudio(f"{path}: the segment is too short to give one sample at {sample_rate} Hz")
    return mono


def write_wav(
    path: str | os.PathLike, wav: Float[np.ndarray, "N"] | Float[np.ndarray, "N C"], sample_rate: int
) -> float:
    """Write 16-bit PCM as wav, or as flac if the suffix says so. The file appears whole or not at all.

    Nothing is clipped: a peak above 0.999 turns the whole sound down. Returns the gain used (1.0: untouched).
    Raises BadAudio on NaN or infinite samples and on other suffixes.
    """
    path = Path(path)
    formats = {".wav": "WAV", ".flac": "FLAC"}
    if path.suffix.lower() not in formats:
        raise BadAudio(f"{path}: sounds are written as .wav or .flac, not as {path.suffix or 'a file without suffix'}")
    if not np.isfinite(wav).all():
        raise BadAudio(f"{path}: not written, {int((~np.isfinite(wav)).sum())} samples are NaN or infinite")
    peak = float(np.abs(wav).max(initial=0.0))
    gain = min(1.0, _PEAK_LIMIT / peak) if peak else 1.0
    if gain < 1.0:
        log.warning(
            "%s: peak %.3f is too loud for the file, turned down by %.1f dB",
            path,
            peak,
            -20 * math.log10(gain),
        )
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        soundfile.write(beside, wav * gain, sample_rate, format=formats[path.suffix.lower()], subtype="PCM_16")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return gain


def loudness(wav: Float[np.ndarray, "N"], sample_rate: int) -> float:
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


def _check_whole(path: str | os.PathLike, file: io.IOBase, sound: soundfile.SoundFile) -> None:
    """Raise BadAudio if the file is shorter than it says. libsndfile opens such files without a word."""
    if sound.format == "OGG":
        place = file.tell()
        file.seek(-min(_OGG_PAGE_LIMIT, file.seek(0, os.SEEK_END)), os.SEEK_END)
        tail = file.read()
        file.seek(place)
        last_page = tail.rfind(b"OggS")
        if not tail[last_page + 5] & 4:  # RFC 3533: this flag marks the last page of a stream
            raise BadAudio(f"{path}: truncated, its last Ogg page does not end the stream")
    # libsndfile keeps the lengths it found wrong in its log, as in "data : 32000 (should be 15978)".
    pattern = r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
    for promised, found in re.findall(pattern, sound.extra_info, flags=re.MULTILINE):
        if int(found) < int(promised) < _LENGTH_UNKNOWN:
            raise BadAudio(f"{path}: truncated, its header promises {promised} bytes but {found} are there")
