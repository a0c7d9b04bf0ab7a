"""Captioned sounds in tar files named as WebDataset does: `key.flac` and `key.txt` or `key.json` side by side."""

import array
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from ualm_jax.audio.io import BadAudio
from ualm_jax.data.raw.files import EncodedSound, matching, open_binary
from ualm_jax.data.raw.sound_source import BadRecord, CaptionedSound, LeftOut
from ualm_jax.errors import UserError

_SOUNDS = ("wav", "flac", "ogg", "opus", "mp3")
_TEXTS = ("txt", "json")


class WebDatasetSounds:
    """The samples of one or several tar files in order. Implements SoundSource.

    pattern: a tar file, or a glob of them; it may be a URL. caption: the field of `key.json` that holds the text.
    A sample is a run of members that share a key, the name up to the first dot of its last part; members that are
    neither sound nor text are passed over. Memory holds 48 bytes a sample: where its two members are.
    Raises UserError for no tar file, a damaged one, or none with a sound and a text.
    """

    def __init__(self, pattern: str | os.PathLike, sample_rate: int, *, caption: str = "text"):
        self._tars = matching(pattern)
        if not self._tars:
            raise UserError(f"{pattern}: there is no such tar file")
        self.name = os.path.basename(self._tars[0]).split(".")[0]
        self.sample_rate, self._caption = sample_rate, caption
        self.left_out: list[LeftOut] = []
        places, digest = array.array("q"), hashlib.sha256()
        for number, tar in enumerate(self._tars):
            try:
                with open_binary(tar) as file:
                    for sound, text in _samples(file):
                        header = sound.offset, sound.offset_data, sound.size
                        is_json = _extension(text.name) == "json"
                        places.extend((number, *header, text.offset_data, -text.size if is_json else text.size))
                        digest.update(f"{sound.name} {sound.size} {sound.chksum} {text.size} {text.chksum} ".encode())
            except (OSError, tarfile.TarError) as error:
                raise UserError(f"{tar}: not a readable tar file ({error})") from error
        if not places:
            raise UserError(f"{pattern}: no sample has a sound ({', '.join(_SOUNDS)}) and a text (txt, json)")
        self._places = np.array(places, np.int64).reshape(-1, 6)
        self._sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> CaptionedSound:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number, header, start, size, text_start, text_size = self._places[index].tolist()
        with open_binary(self._tars[number]) as file:
            file.seek(header)
            sound = file.read(start + size - header)
            file.seek(text_start)
            text = file.read(abs(text_size))
        with tarfile.open(fileobj=io.BytesIO(sound)) as tar:
            key = _key(tar.next().name)
        where = f"{self._tars[number]} sample {key}"
        try:
            wav = EncodedSound(where, sound[start - header :]).read(self.sample_rate)
        except BadAudio as error:
            raise BadRecord(str(error)) from error
        return CaptionedSound(key, self._text(text, text_size < 0, where), wav, self.sample_rate, scene=None)

    def fingerprint(self) -> dict[str, Any]:
        """By the headers of all members used: names, sizes, times."""
        return {"kind": "webdataset", "sha256": self._sha256, "caption": self._caption, "sample_rate": self.sample_rate}

    def _text(self, content: bytes, is_json: bool, where: str) -> str:
        try:
            text = content.decode()
            if is_json:
                record = json.loads(text)
                text = record.get(self._caption) if isinstance(record, dict) else None
        except ValueError as error:
            raise BadRecord(f"{where}: its text can not be read ({error})") from error
        if not isinstance(text, str) or not text.strip():
            raise BadRecord(f"{where}: expected a text that is not empty, found {text!r}")
        return text.strip()


def _samples(file: io.IOBase) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarInfo]]:
    """The sound and the text of every sample that has both."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        key, found = None, {}
        for member in tar:
            tar.members = []  # tarfile would remember every member
            if not member.isfile():
                continue
            if _key(member.name) != key:
                key, found = _key(member.name), {}
            kind = "sound" if _extension(member.name) in _SOUNDS else "text"
            if kind in found or _extension(member.name) not in _SOUNDS + _TEXTS:
                continue
            found[kind] = member
            if len(found) == 2:
                yield found["sound"], found["text"]


def _key(name: str) -> str:
    folder, _, last = name.rpartition("/")
    key = last.split(".")[0]
    return f"{folder}/{key}" if folder else key


def _extension(name: str) -> str:
    return name.rsplit(".", 1)[-1].lower()
