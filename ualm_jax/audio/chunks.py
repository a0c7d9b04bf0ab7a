"""Containers that promise the size of their sound: WAV and its larger kin (RF64, W64), AIFF, CAF, AU and NIST.

What is there may be less than promised, and what follows may be more than chunks that are known.
"""

import dataclasses
import io
import re
from typing import Literal

from ualm_jax.audio.stream import Bytes, Damaged, Stream, View

_UNKNOWN = {4: 0x7FFFF000, 8: 1 << 62}  # writers that stream put this or more where a size of so many bytes belongs
_W64 = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # how the names of its chunks go on after four letters


@dataclasses.dataclass(frozen=True)
class _Container:
    """head: bytes before the first chunk. size: bytes of a chunk's size, behind its name; head_counts: whether it
    includes the two. align: what chunks begin at a multiple of. sound: the name of the chunk of samples; least: bytes
    it has besides them."""

    head: int = 12
    suffix: bytes = b""
    size: int = 4
    order: Literal["little", "big"] = "little"
    head_counts: bool = False
    align: int = 2
    sound: bytes = b"data"
    least: int = 0

    def chunk(self, content: Bytes, position: int) -> tuple[bytes, int, int] | None:
        """Name, first byte and size of the chunk here; None if it is none."""
        behind_name = position + 4 + len(self.suffix)
        name, size = content.at(position, 4), content.at(behind_name, self.size)
        if not re.fullmatch(rb"[ -~]{4}", name) or len(size) < self.size:
            return None
        if content.at(position + 4, len(self.suffix)) != self.suffix:
            return None
        start, count = behind_name + self.size, int.from_bytes(size, self.order)
        return name, start, count - (start - position if self.head_counts else 0)


_CONTAINERS = {
    b"RIFF": _Container(),
    b"RIFX": _Container(order="big"),
    b"RF64": _Container(),
    b"FORM": _Container(order="big", sound=b"SSND", least=8),
    b"riff": _Container(head=40, suffix=_W64, size=8, head_counts=True, align=8),
    b"caff": _Container(head=8, size=8, order="big", align=1, least=4),
}
MARKS = (*_CONTAINERS, b".snd", b"dns.", b"NIST")


def walk(content: Bytes, position: int) -> tuple[Stream, int]:
    """The sound that begins here, and where its container ends. Raises Damaged where less is there than promised."""
    mark = content.at(position, 4)
    if mark in (b".snd", b"dns."):
        return _au(content, position, "big" if mark == b".snd" else "little")
    if mark == b"NIST":
        return _nist(content, position)
    container, start, long_size, found = _CONTAINERS[mark], position, None, False
    position += container.head
    while (chunk := container.chunk(content, position)) is not None and chunk[0] not in _CONTAINERS:
        name, first, size = chunk
        if name == b"ds64" and mark == b"RF64":
            long_size = first + 8
        if name == container.sound:
            if found:
                raise Damaged(f"it has a second chunk of sound at byte {position}")
            found, place, width = True, first - container.size, container.size
            if long_size is not None and size == 0xFFFFFFFF:
                size, place, width = int.from_bytes(content.at(long_size, 8), "little"), long_size, 8
            if size >= _UNKNOWN[width] or (size <= container.least and container.chunk(content, first + size) is None):
                counted = content.size - (position if container.head_counts else first)
                told = min(counted, 256**width - 1).to_bytes(width, container.order)
                return Stream(_replaced(content, start, place, told)), content.size
            _check(content, first, size)
        elif size < 0 or first + size > content.size:
            break
        position = start + -(-(first + size - start) // container.align) * container.align
        if container.chunk(content, position) is None and container.chunk(content, first + size) is not None:
            position = first + size  # some writers forget to align
    if not found:
        raise Damaged("not a readable sound file (it has no chunk of samples; it may be truncated)")
    position = min(position, content.size)
    return Stream(content.view(start, position)), position


def _au(content: Bytes, position: int, order: Literal["little", "big"]) -> tuple[Stream, int]:
    offset, size = (int.from_bytes(content.at(position + place, 4), order) for place in (4, 8))
    _check(content, position, offset)
    if size >= _UNKNOWN[4] or size == 0:
        told = min(content.size - position - offset, 0xFFFFFFFF).to_bytes(4, order)
        return Stream(_replaced(content, position, position + 8, told)), content.size
    _check(content, position + offset, size)
    end = position + offset + size
    return Stream(content.view(position, end)), end


def _nist(content: Bytes, position: int) -> tuple[Stream, int]:
    head = content.at(position, 4096)
    fields = dict(re.findall(rb"(\w+) -[irs]\d* (\S+)\n", head.partition(b"end_head")[0]))
    try:
        size = 1
        for name in (b"sample_count", b"channel_count", b"sample_n_bytes"):
            size *= int(fields[name])
        offset = int(head[8:16])
    except (KeyError, ValueError) as error:
        raise Damaged(f"its NIST header does not say how long the sound is ({error})") from error
    _check(content, position + offset, size)
    return Stream(content.view(position, position + offset + size)), position + offset + size


def _check(content: Bytes, first: int, size: int) -> None:
    there = content.size - first
    if there < size:
        raise Damaged(f"truncated, its header promises {size} bytes but {max(there, 0)} are there")


def _replaced(content: Bytes, start: int, place: int, told: bytes) -> View:
    """Everything from `start` on, with the size at `place` that the writer did not know."""
    behind = place + len(told)
    file = content.file
    return View((file, start, place), (io.BytesIO(told), 0, len(told)), (file, behind, content.size))
