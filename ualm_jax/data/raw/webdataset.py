"""Captioned sounds in tar files named as WebDataset does: `key.flac` and `key.txt` or `key.json` side by side."""

import array
import collections
import dataclasses
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ualm_jax.audio.io import BadAudio
from ualm_jax.data.raw.files import EncodedSound, matching, open_binary
from ualm_jax.data.raw.json_records import parse_json
from ualm_jax.data.raw.schema import take
from ualm_jax.data.raw.segment import take_duration
from ualm_jax.data.raw.sound_source import BadRecord, CaptionedSound, LeftOut
from ualm_jax.errors import UserError

_SOUNDS = ("wav", "flac", "ogg", "opus", "mp3", "aiff", "aif", "au", "caf", "w64")
_TEXTS = ("txt", "json")
_BLOCK = 512  # bytes; what tar files consist of
_JSON, _ALONE = 1, 2  # of a sample: its text is JSON; no other sample has its key


class _Member(NamedTuple):
    """Of a tar file. header, start: where its header and its content begin; check: the header's checksum."""

    name: str
    header: int
    start: int
    size: int
    check: int


@dataclasses.dataclass
class _Sample:
    """name: of its members, without their last suffix. alone: no other sample has its key."""

    name: str
    sound: _Member | None = None
    text: _Member | None = None
    alone: bool = True


class WebDatasetSounds:
    """The samples of one or several tar files in order. Implements SoundSource.

    pattern: a tar file, or a pattern of several (files.matching); it may be a URL. caption: the field of `key.json`
    that holds the text. ignore: fields of it to pass over, whatever they seem to say.

    Members whose names agree up to the first dot of their last part have a key in common. Sound and text belong
    together if they stand in one run of members with the same key and have the same name but for the last suffix. That
    name is the sample's id, or the key where the run holds no other sample. A sound without a text, or a text without a
    sound in a run without any sample, is a bad record. All other members are passed over, and counted in `left_out`.

    Memory holds 48 bytes a sample: where its two members are. Raises UserError for no tar file, a damaged one, or none
    with a sound and a text; on access, BadRecord for what is wrong with one sample.
    """

    def __init__(
        self, pattern: str | os.PathLike, sample_rate: int, *, caption: str = "text", ignore: Sequence[str] = ()
    ):
        if os.path.isdir(pattern):
            raise UserError(f"{pattern}: is a folder; name its tar files, as in '{pattern}/*.tar'")
        self._tars = matching(pattern)
        if not self._tars:
            raise UserError(f"{pattern}: there is no such tar file")
        self.name = os.path.basename(self._tars[0]).split(".")[0]
        self.sample_rate, self._caption, self._ignore = sample_rate, caption, tuple(ignore)
        places, digest, passed_over, whole = array.array("q"), hashlib.sha256(), _PassedOver(), 0
        for number, tar in enumerate(self._tars):
            try:
                with open_binary(tar) as file:
                    for sample in _samples(file, passed_over):
                        places.extend(_place(number, sample))
                        whole += sample.sound is not None and sample.text is not None
                        members = [member for member in (sample.sound, sample.text) if member is not None]
                        digest.update("".join(f"{m.name} {m.size} {m.check} " for m in members).encode())
            except (OSError, tarfile.TarError) as error:
                raise UserError(f"{tar}: not a readable tar file ({error})") from error
        if not whole:
            raise UserError(f"{pattern}: no sample has a sound ({', '.join(_SOUNDS)}) and a text (txt, json)")
        self.left_out = passed_over.as_list()
        self._places = np.array(places, np.int64).reshape(-1, 6)
        self._sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> CaptionedSound:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number, header, start, size, text_start, text_size = self._places[index].tolist()
        tar, is_json, alone = self._tars[number >> 2], bool(number & _JSON), bool(number & _ALONE)
        with open_binary(tar) as file:
            file.seek(header)
            head = file.read((start if start >= 0 else text_start) - header)
            sound = file.read(size) if start >= 0 else None
            file.seek(max(0, text_start))
            text = file.read(text_size) if text_start >= 0 else None
        with tarfile.open(fileobj=io.BytesIO(head)) as parsed:
            name = parsed.next().name
        name = _key(name) if alone else _stem(name)
        where = f"{tar} sample {name}"
        try:
            if sound is None or text is None:
                has, lacks = ("text", "sound") if sound is None else ("sound", "text")
                raise BadRecord(f"{where}: has a {has} but no {lacks} of the same name beside it")
            caption, whole, unused = self._read_text(text, is_json, where)
            wav = EncodedSound(where, sound, whole).read(self.sample_rate)
        except (BadRecord, BadAudio) as error:
            raise BadRecord(str(error), name) from error
        return CaptionedSound(name, caption, wav, self.sample_rate, scene=None, unused=unused)

    def fingerprint(self) -> dict[str, Any]:
        """By the headers of all members used: names, sizes, times."""
        return {
            "kind": "webdataset",
            "sha256": self._sha256,
            "caption": self._caption,
            "sample_rate": self.sample_rate,
            "ignore": list(self._ignore),
        }

    def _read_text(self, content: bytes, is_json: bool, where: str) -> tuple[str, float | None, tuple[str, ...]]:
        """The caption, how long the sound should be, and the fields that are not used."""
        whole, unused = None, ()
        try:
            text = content.decode("utf-8-sig")
            if is_json:
                record = parse_json(content)
                record = record if isinstance(record, dict) else {}
                unused = take(record, self._ignore)
                text = record.pop(self._caption, None)
                whole = take_duration(record, where)
                unused = (*unused, *(name for name in record if name != "duration" or whole is None))
        except (ValueError, RecursionError) as error:
            raise BadRecord(f"{where}: its text can not be read ({error})") from error
        if not isinstance(text, str) or not text.strip():
            raise BadRecord(f"{where}: expected a text that is not empty, found {text!r}")
        return text.strip(), whole, unused


class _PassedOver:
    """Members that are not used: for each reason the first of them, and how many there are."""

    def __init__(self):
        self._first: dict[str, str] = {}
        self._counts: collections.Counter[str] = collections.Counter()

    def add(self, name: str, reason: str) -> None:
        self._first.setdefault(reason, name)
        self._counts[reason] += 1

    def as_list(self) -> list[LeftOut]:
        return [LeftOut(name, reason, self._counts[reason]) for reason, name in self._first.items()]


def _place(number: int, sample: _Sample) -> tuple[int, ...]:
    """What is kept of a sample: tar file and flags, header of the member that names it, place and size of sound and of
    text, -1 where there is none."""
    sound, text = sample.sound, sample.text
    flags = (_JSON if text is not None and _suffix(text.name) == "json" else 0) | (_ALONE if sample.alone else 0)
    where = [(member.start, member.size) if member is not None else (-1, 0) for member in (sound, text)]
    return number << 2 | flags, (sound or text).header, *where[0], *where[1]


def _samples(file: io.IOBase, passed_over: _PassedOver) -> Iterator[_Sample]:
    key, run = None, {}
    for member in _members(file, passed_over):
        suffix = _suffix(member.name)
        if suffix not in _SOUNDS + _TEXTS:
            passed_over.add(
                member.name, f"neither a sound ({', '.join(_SOUNDS)}) nor a text (txt, json), but .{suffix}"
            )
            continue
        if _key(member.name) != key:
            yield from _whole(run.values(), passed_over)
            key, run = _key(member.name), {}
        sample = run.setdefault(_stem(member.name), _Sample(_stem(member.name)))
        kind = "sound" if suffix in _SOUNDS else "text"
        if getattr(sample, kind) is not None:
            passed_over.add(member.name, f"a second {kind} of a sample")
        else:
            setattr(sample, kind, member)
    yield from _whole(run.values(), passed_over)


def _whole(run: Iterable[_Sample], passed_over: _PassedOver) -> Iterator[_Sample]:
    """The samples of a run of members with one key. Texts that stand beside a whole sample are no samples."""
    run = list(run)
    if any(sample.sound is not None and sample.text is not None for sample in run):
        for sample in run:
            if sample.sound is None:
                passed_over.add(sample.text.name, "a text beside a sample, but of another name than its sound")
        run = [sample for sample in run if sample.sound is not None]
    for sample in run:
        sample.alone = len(run) == 1
        yield sample


def _members(file: io.IOBase, passed_over: _PassedOver) -> Iterator[_Member]:
    """The files in a tar file, also behind the end of a first archive where others follow.

    Raises TarError where it is damaged: the library alone would stop there as if it were the end.
    """
    size, position = file.seek(0, os.SEEK_END), 0
    while (position := _skip_zeros(file, position, size)) < size:
        file.seek(position)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # the library would remember every member
                if member.name.rpartition("/")[2].startswith("._"):
                    passed_over.add(member.name, "what macOS writes beside a file")
                elif member.isdir():
                    pass
                elif not member.isfile() or member.issparse():
                    passed_over.add(member.name, "a link, a device or a sparse file, not a plain file")
                else:
                    yield _Member(member.name, member.offset, member.offset_data, member.size, member.chksum)
            if tar.offset == position:
                raise tarfile.TarError(f"damaged, no header at byte {position}")
            position = tar.offset


def _skip_zeros(file: io.IOBase, position: int, size: int) -> int:
    """The first block from here on that does not consist of zeros."""
    file.seek(position)
    while position < size:
        content = file.read(_BLOCK * 128)
        blocks = [content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
        for block in blocks:
            if block.strip(b"\0"):
                return position
            position += len(block)
    return size


def _key(name: str) -> str:
    folder, _, last = name.rpartition("/")
    key = last.split(".")[0]
    return f"{folder}/{key}" if folder else key


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _suffix(name: str) -> str:
    return name.rsplit(".", 1)[-1].lower()
