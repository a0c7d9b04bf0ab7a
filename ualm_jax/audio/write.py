"""Waveforms to sound files: wav, flac, ogg (Vorbis) and mp3. Never clipped, whole or not at all.

The same samples and comment give the same bytes on every day: what libsndfile draws by chance is settled here.
"""

import dataclasses
import io
import logging
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from ualm_jax.audio.io import BadAudio, loudness
from ualm_jax.errors import UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MEASURES = ("peak", "rms", "lufs")
_SUBTYPES = {
    ".wav": {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"},
    ".flac": {"16": "PCM_16", "24": "PCM_24"},
    ".ogg": {None: "VORBIS"},
    ".mp3": {None: "MPEG_LAYER_III"},
}
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
_PEAK_LIMIT = 0.999  # of full scale: what 16-bit rounding can still hold without clipping
_SILENCE = -70.0  # dB of full scale, or LUFS: the absolute gate of ITU-R BS.1770; what is softer is not made louder
_BLOCK = 1 << 16  # samples given to an encoder at once: libsndfile's Vorbis overruns its stack with more of them

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Loudness:
    """How loud a sound shall be. measure: "peak" and "rms" in dB of full scale, "lufs" as ITU-R BS.1770-4 has it."""

    measure: str
    level: int | float

    def __post_init__(self):
        if self.measure not in MEASURES:
            raise UserError(f"loudness is measured as one of {', '.join(MEASURES)}, not {self.measure!r}.")
        if not _SILENCE <= self.level <= 0:
            raise UserError(f"a loudness must lie between {_SILENCE:g} and 0 dB, got {self.level:g}.")

    def gain(self, wav: Float[np.ndarray, "*_"], sample_rate: int) -> float:
        """What makes a sound so loud; 1 for silence."""
        found = self._level_of(wav, sample_rate)
        return 1.0 if found < _SILENCE else 10 ** ((self.level - found) / 20)

    def _level_of(self, wav: np.ndarray, sample_rate: int) -> float:
        if not wav.size:
            return -math.inf
        if self.measure == "lufs":
            return loudness(wav, sample_rate)
        value = np.abs(wav).max() if self.measure == "peak" else math.sqrt(np.mean(wav.astype(np.float64) ** 2))
        return 20 * math.log10(value) if value > 0 else -math.inf


def check_format(path: str | os.PathLike, depth: str | None = None) -> str | None:
    """The depth that a file of this name is written with: `depth`, or by default 16 bits; None for lossy formats.

    Raises BadAudio where no such file can be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        name = suffix or "a file without suffix"
        raise BadAudio(f"{path}: sounds are written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, not as {name}")
    depths = _SUBTYPES[suffix]
    if depth is None:
        return next(iter(depths))
    if depth not in depths:
        can = " or ".join(depths) if None not in depths else "none, for it is lossy"
        raise BadAudio(f"{path}: a depth of {depth} was asked for, but a {suffix} file can have {can}")
    return depth


def write_sound(
    path: str | os.PathLike,
    wav: Float[np.ndarray, "N"] | Float[np.ndarray, "N C"],
    sample_rate: int,
    *,
    depth: str | None = None,
    loud: Loudness | None = None,
    comment: str = "",
) -> float:
    """Writes what `encode_sound` makes. Returns the gain used. The file appears whole or not at all."""
    content, gain = encode_sound(path, wav, sample_rate, depth=depth, loud=loud, comment=comment)
    write_whole({path: content})
    return gain


def encode_sound(
    path: str | os.PathLike,
    wav: Float[np.ndarray, "N"] | Float[np.ndarray, "N C"],
    sample_rate: int,
    *,
    depth: str | None = None,
    loud: Loudness | None = None,
    comment: str = "",
) -> tuple[bytes, float]:
    """The bytes of a sound file in the format that the suffix of `path` says, and the gain used (1.0: untouched).

    depth: bits, "16" (default) or "24", or "float"; lossy formats have none. loud: by default the sound stays as it
    is. comment: ASCII, kept in the file's own metadata; `read_comment` gives it back.
    A peak above 0.999 of full scale turns the sound down; a lossy file is decoded to see that it has none above 1.
    Raises BadAudio for NaN or infinite samples and for what `check_format` refuses.
    """
    path, depth = Path(path), check_format(path, depth)
    if not np.isfinite(wav).all():
        raise BadAudio(f"{path}: not written, {int((~np.isfinite(wav)).sum())} samples are NaN or infinite")
    wanted = 1.0 if loud is None else loud.gain(wav, sample_rate)
    peak = float(np.abs(wav).max(initial=0.0))
    gain = min(wanted, _PEAK_LIMIT / peak) if peak else 1.0
    content = _encode(path, wav * np.float32(gain), sample_rate, depth, comment)
    while depth is None and (peak := _decoded_peak(content)) > 1:
        gain *= _PEAK_LIMIT / peak
        content = _encode(path, wav * np.float32(gain), sample_rate, depth, comment)
    if gain < wanted:
        log.warning("%s: too loud for the file, turned down by %.1f dB", path, 20 * math.log10(wanted / gain))
    return content, gain


def write_whole(contents: Mapping[str | os.PathLike, bytes]) -> None:
    """Writes files beside and renames them when all are written. Raises OSError where there is no room; then none of
    them has appeared or changed."""
    beside = {}
    try:
        for path, content in contents.items():
            path = Path(path)
            beside[path] = path.with_name(f".{path.name}.{os.getpid()}.part")
            with open(beside[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # a disk that is full may say so only now
        for path, part in beside.items():
            os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        for part in beside.values():
            part.unlink(missing_ok=True)


def read_comment(path: str | os.PathLike) -> str:
    """The comment in a sound file's metadata; "" where it has none. Raises BadAudio for what is no sound file."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        if content[:4] == b"RIFF":  # libsndfile does not give back what is longer than 2 KB
            return _wav_comment(content)
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            return sound.comment
    except soundfile.LibsndfileError as error:
        raise BadAudio(f"{path}: not a readable sound file ({error.error_string.strip(' .')})") from error
    except OSError as error:
        raise BadAudio(f"{path}: can not be read ({error.strerror or error})") from error


def _encode(path: Path, wav: np.ndarray, sample_rate: int, depth: str | None, comment: str) -> bytes:
    suffix, channels, buffer = path.suffix.lower(), 1 if wav.ndim == 1 else wav.shape[1], io.BytesIO()
    try:
        how = dict(format=_FORMATS[suffix], subtype=_SUBTYPES[suffix][depth])
        with soundfile.SoundFile(buffer, "w", sample_rate, channels, **how) as file:
            if comment:
                file.comment = comment
            for start in range(0, len(wav), _BLOCK):
                file.write(wav[start : start + _BLOCK])
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip(" .")
        raise BadAudio(
            f"{path}: {suffix[1:]} does not hold {channels} channels of {sample_rate} Hz ({reason})"
        ) from error
    settle = {".wav": _without_time, ".ogg": _with_serial}.get(suffix)
    content = bytearray(buffer.getvalue())
    if settle is not None:
        settle(content)
    return bytes(content)


def _decoded_peak(content: bytes) -> float:
    with soundfile.SoundFile(io.BytesIO(content)) as sound:
        return max((float(np.abs(block).max()) for block in sound.blocks(_BLOCK, dtype="float32")), default=0.0)


def _chunks(content: bytes | bytearray, start: int, end: int):
    """Name, first byte and size of each chunk of a RIFF file, or of a list in it."""
    while start + 8 <= end:
        name, size = struct.unpack_from("<4sI", content, start)
        yield name, start + 8, size
        start += 8 + size + size % 2


def _wav_comment(content: bytes) -> str:
    for name, start, size in _chunks(content, 12, len(content)):
        if name == b"LIST" and content[start : start + 4] == b"INFO":
            for entry, first, length in _chunks(content, start + 4, start + size):
                if entry == b"ICMT":
                    return content[first : first + length].rstrip(b"\0").decode(errors="replace")
    return ""


def _without_time(content: bytearray) -> None:
    """libsndfile notes in a wav of floats when its peaks were found: a second that nobody needs."""
    for name, start, _ in _chunks(content, 12, len(content)):
        if name == b"PEAK":
            struct.pack_into("<I", content, start + 4, 0)


def _with_serial(content: bytearray) -> None:
    """libsndfile draws the serial number of an Ogg stream by chance. Here it is 1, with the checksums that follow."""
    position = 0
    while position < len(content):
        segments = content[position + 26]
        size = 27 + segments + sum(content[position + 27 : position + 27 + segments])
        struct.pack_into("<I", content, position + 14, 1)
        struct.pack_into("<I", content, position + 22, 0)
        struct.pack_into("<I", content, position + 22, _ogg_crc(content[position : position + size]))
        position += size


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes | bytearray) -> int:
    """CRC-32 of RFC 3533: zlib's polynomial, but most significant bit first, begun with 0 and not inverted."""
    # zlib reads bits the other way round; begun with all ones it inverts to 0 before the first byte.
    found = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2)
