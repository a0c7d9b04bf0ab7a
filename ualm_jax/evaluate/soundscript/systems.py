"""Where the sounds of a judged system come from: files by id, or a command that makes one at a time."""

import logging
import os
import pathlib
import shlex
import subprocess
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from ualm_jax.audio.io import read_audio
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript.benchmark import RATE, Item

log = logging.getLogger(__name__)

_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_NOTHING = np.zeros(0, np.float32)


def from_folder(folder: str | os.PathLike, items: Sequence[Item]) -> Iterator[Float32[np.ndarray, "_"]]:
    """The sound FOLDER/ID.wav (or .flac, .ogg, .mp3) of each item at 16 kHz, or no samples where there is none; how
    many are missing is logged.

    Raises UserError where there is not one of them, and for a file that cannot be read.
    """
    found = {path.stem: path for path in pathlib.Path(folder).iterdir() if path.suffix.lower() in _SUFFIXES}
    missing = [item.id for item in items if item.id not in found]
    if len(missing) == len(items):
        raise UserError(f"{folder}: expected sound files named by id, such as {items[0].id}.wav, found none of them.")
    if missing:
        log.warning("%s: %d of %d sounds are missing, such as %s", folder, len(missing), len(items), missing[0])
    for item in items:
        yield read_audio(found[item.id], sample_rate=RATE) if item.id in found else _NOTHING


def from_command(command: str, folder: pathlib.Path, items: Sequence[Item]) -> Iterator[Float32[np.ndarray, "_"]]:
    """Runs `command` once for each item, with {caption}, {id} and {out} (a wav to write in `folder`) filled in.

    No shell is involved. A sound that is in `folder` already is not made again. Raises UserError where the command
    fails or leaves no file.
    """
    words = shlex.split(command)
    if not any("{out}" in word for word in words):
        raise UserError(f"the command must name {{out}}, the file to write: {command}")
    for item in items:
        out = folder / f"{item.id}.wav"
        if not out.is_file():
            beside = folder / f"unfinished-{item.id}.wav"
            fields = {"{caption}": item.caption, "{id}": item.id, "{out}": str(beside)}
            filled = [_fill(word, fields) for word in words]
            try:
                done = subprocess.run(filled, capture_output=True, text=True)
            except OSError as error:
                raise UserError(f"the command cannot be run: {error}") from error
            if done.returncode or not beside.is_file():
                said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
                raise UserError(f"{item.id}: the command ended with {done.returncode} and no sound ({said}).")
            os.replace(beside, out)
        yield read_audio(out, sample_rate=RATE)


def _fill(word: str, fields: dict[str, str]) -> str:
    for name, value in fields.items():
        word = word.replace(name, value)
    return word
