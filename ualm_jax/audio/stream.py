"""Sounds as they lie in a file: what a file's own marks say of where each begins and ends, and whether it is whole."""

import bisect
import dataclasses
import io
import itertools
import os

_WINDOW = 1 << 16  # bytes read at once while looking for marks


class Damaged(Exception):
    """What is wrong with a sound file, without its name."""


class View(io.RawIOBase):
    """A file to be read, made of pieces (file, first byte, last byte + 1) of others; nothing is copied."""

    def __init__(self, *pieces: tuple[io.IOBase, int, int]):
        self._pieces = [piece for piece in pieces if piece[2] > piece[1]]
        self._ends = list(itertools.accumulate(end - start for _, start, end in self._pieces))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """A place before the first byte is the first byte: a damaged header may send libsndfile anywhere."""
        length = self._ends[-1] if self._ends else 0
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer) -> int:
        target, done = memoryview(buffer).cast("B"), 0
        while done < len(target) and (number := bisect.bisect_right(self._ends, self._position)) < len(self._ends):
            file, _, end = self._pieces[number]
            left = self._ends[number] - self._position
            file.seek(end - left)
            content = file.read(min(left, len(target) - done))
            if not content:
                break
            target[done : done + len(content)] = content
            done += len(content)
            self._position += len(content)
        return done


class Bytes:
    """The bytes of a file at any place. size: how many there are."""

    def __init__(self, file: io.IOBase):
        self.file = file
        self.size = file.seek(0, os.SEEK_END)
        self._start, self._held = 0, b""

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes, fewer where the file ends."""
        if not self._start <= position <= position + count <= self._start + len(self._held):
            self.file.seek(position)
            self._start, self._held = position, self.file.read(max(count, _WINDOW))
        return self._held[position - self._start :][:count]

    def view(self, start: int, end: int) -> View:
        return View((self.file, start, end))


@dataclasses.dataclass(frozen=True)
class Stream:
    """One sound of a file.

    content: what libsndfile reads. samples: how many each channel decodes to, None where that is not known before;
    promised: the same as its header has it, to be checked. What libsndfile gives after a seek is only right outside of
    the last `unseekable` samples, and `settling` samples after the place it was sent to.
    """

    content: View
    samples: int | None = None
    promised: int | None = None
    unseekable: int = 0
    settling: int = 0


def skip_tags(content: Bytes, position: int) -> int:
    """The first place from `position` on that is no tag of an MP3 file (ID3, APE, Lyrics3) and no run of zeros."""
    while position < content.size:
        head = content.at(position, 32)
        if head[:3] == b"ID3" and len(head) >= 10:
            size = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            position += 10 + size + (10 if head[5] & 16 else 0)
        elif head[:3] == b"TAG":
            position += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            # A header counts the items and the footer behind it; a footer alone counts items that came before.
            position += 32 + (int.from_bytes(head[12:16], "little") if head[23] & 32 else 0)
        elif head[:11] == b"LYRICSBEGIN":
            end = content.at(position, 10_000).find(b"LYRICS200")
            position += end + 9 if end >= 0 else 11
        elif head[:1] == b"\0":
            zeros = content.at(position, _WINDOW)
            position += len(zeros) - len(zeros.lstrip(b"\0"))
        else:
            break
    return min(position, content.size)
