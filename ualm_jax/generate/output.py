"""A generated sound on disk: the sound file, how it was made (in its own metadata and beside it), and its picture.

`FILE.json` and `FILE.png` lie beside FILE. All of them appear together, or none does.
"""

import io
import json
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ualm_jax.audio.io import BadAudio
from ualm_jax.audio.spectrogram import save_spectrogram_png
from ualm_jax.audio.write import SUFFIXES, Loudness, check_format, encode_sound, read_comment, write_whole
from ualm_jax.errors import UserError

Record = Mapping[str, Any]
"""How a sound was made, ready for JSON; `clip.Clip.record` makes it, `replay` makes the sound again."""

_BESIDE = ("candidates", "gain", "seconds", "rate")  # what only the JSON says


def parse_loudness(value: str) -> Loudness:
    """A loudness such as "lufs=-16", "rms=-20" or "peak=-1". Raises UserError for other words."""
    measure, separator, level = value.partition("=")
    try:
        return Loudness(measure, float(level))
    except ValueError:
        raise UserError(f"a loudness is given as peak=-1, rms=-20 or lufs=-16 (in dB), not as {value!r}.") from None


def save_sound(
    path: str | os.PathLike,
    samples: Float[np.ndarray, "N"] | Float[np.ndarray, "N C"],
    rate: int,
    record: Record,
    *,
    depth: str | None = None,
    loudness: str | None = None,
    plot: bool = False,
    more: Record = types.MappingProxyType({}),
) -> float:
    """Writes a .wav, .flac, .ogg or .mp3 file, the record beside it, and with `plot` a spectrogram. Returns the gain.

    depth, loudness: see `audio.write.encode_sound` and `parse_loudness`; they become part of the record, which is kept
    in the file's own metadata too. more: what the JSON says besides.
    Raises UserError for what cannot be written so, OSError where there is no room; then nothing has been written.
    """
    path, depth = Path(path), check_format(path, depth)
    record = {**record, "file": {"depth": depth, "loudness": loudness}}
    loud = None if loudness is None else parse_loudness(loudness)
    # ASCII, since MP3's tags know nothing else here. No NaN is in it, and none of it changes from day to day.
    comment = json.dumps(record, allow_nan=False)
    content, gain = encode_sound(path, samples, rate, depth=depth, loud=loud, comment=comment)
    beside = {**record, **more, "gain": gain, "seconds": len(samples) / rate, "rate": rate}
    contents = {json_of(path): (json.dumps(beside, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()}
    if plot:
        picture = io.BytesIO()
        mono = samples if samples.ndim == 1 else samples.mean(axis=1)
        save_spectrogram_png(picture, mono * np.float32(gain), rate, str(record.get("prompt", path.name)))
        contents[path.with_name(path.name + ".png")] = picture.getvalue()
    write_whole({**contents, path: content})
    return gain


def save_again(
    path: str | os.PathLike, samples: Float[np.ndarray, "N"] | Float[np.ndarray, "N C"], rate: int, record: Record
) -> float:
    """Writes a sound as the one was that `record` was read from; equal samples give an equal file."""
    own = {name: value for name, value in record.items() if name not in ("file", *_BESIDE)}
    return save_sound(path, samples, rate, own, **record["file"])


def json_of(path: str | os.PathLike) -> Path:
    """The path of the JSON record beside a sound file."""
    return Path(path).with_name(Path(path).name + ".json")


def read_record(path: str | os.PathLike) -> dict[str, Any]:
    """The record in a sound file or a JSON file. Raises UserError where there is none."""
    path = Path(path)
    if path.suffix.lower() not in (".json", *SUFFIXES):
        raise UserError(f"{path}: expected a sound file that `ualm generate` made, or the JSON beside it.")
    try:
        text = path.read_text(encoding="utf-8") if path.suffix.lower() == ".json" else read_comment(path)
        record = json.loads(text) if text else None
    except (ValueError, UnicodeDecodeError):
        record = None
    except OSError as error:
        raise BadAudio(f"{path}: can not be read ({error.strerror or error})") from error
    if not isinstance(record, dict) or not {"prompt", "settings", "weights", "codes", "file"} <= record.keys():
        raise UserError(f"{path}: does not say how it was made; only what `ualm generate` has written does.")
    made_by = record.get("made_by")
    groups = {name: record[name] for name in ("settings", "weights", "codes", "file")} | {"made_by": made_by or {}}
    damaged = [name for name, group in groups.items() if not isinstance(group, dict)]
    if not damaged and record["file"].keys() != {"depth", "loudness"}:
        damaged = ["file"]
    if damaged:
        raise UserError(f"{path}: what it says of {damaged[0]} is damaged, so it can not be made again.")
    return record
