"""MPEG audio (MP3 and its older layers): frames one after the other, each with a header of its own.

Only counting the frames tells how long such a sound is. Many files have no header for the whole, or a wrong one, and
the decoder then guesses from the bit rate of the first frame and stops there. So frames are counted here, and the
decoder is given them after an information frame (Xing, LAME) that says the count.
"""

import dataclasses
import io
import struct

from ualm_jax.audio.stream import Bytes, Damaged, Stream, View, skip_tags

_BIT_RATES = {  # kbit/s by index; (MPEG 1?, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_BIT_RATES[False, 3] = _BIT_RATES[False, 2]
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz; by version bits
_DECODER_DELAY = 529  # samples
_LAME_TAG = 36  # bytes: who encoded it, and how many samples stand before and after the sound
_RESERVOIR = 100  # frames; at the lowest bit rates the data of one may begin 85 frames before it
_SEARCH = 1 << 16  # bytes in which the first frame must begin


@dataclasses.dataclass(frozen=True)
class _Frame:
    """size in bytes, samples for each channel. kind: what all frames of a sound agree in. side: bytes between the
    header and an information frame's mark."""

    size: int
    samples: int
    kind: tuple[int, int, int, bool]
    side: int


def _frame(header: bytes) -> _Frame | None:
    """What the four bytes of a header say; None if they are none, or leave the size open (free format)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    first, mono = version == 3, header[3] >> 6 == 3
    bits, hertz = _BIT_RATES[first, layer][bit_rate - 1] * 1000, _RATES[version][rate]
    kind = version, layer, hertz, mono
    if layer == 1:
        return _Frame((12 * bits // hertz + padding) * 4, 384, kind, 0)
    samples = 576 if layer == 3 and not first else 1152
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Frame(samples // 8 * bits // hertz + padding, samples, kind, side)


def begins(content: Bytes, position: int) -> bool:
    """Whether frames begin here: one, with another of its kind, a tag or the end of the file behind it."""
    frame = _frame(content.at(position, 4))
    if frame is None or position + frame.size > content.size:
        return False
    behind = position + frame.size
    following = _frame(content.at(behind, 4))
    return following.kind == frame.kind if following else skip_tags(content, behind) != behind or behind == content.size


def find(content: Bytes, position: int) -> int | None:
    """Where frames begin, among the first bytes from `position` on."""
    while position < min(content.size, position + _SEARCH):
        hit = content.at(position, _SEARCH).find(b"\xff")
        if hit < 0:
            return None
        position += hit
        if begins(content, position):
            return position
        position += 1
    return None


def walk(content: Bytes, position: int) -> tuple[Stream, int]:
    """The sound that begins here, and where it ends: at the next one's information frame, or at what is no frame.

    Raises Damaged where the last frame, or frames that the information frame counts, are missing.
    """
    first = _frame(content.at(position, 4))
    promised, tag = _information(content, position, first)
    if promised is not None:
        position += first.size
    count, runs = 0, []
    while position < content.size:
        frame = _frame(content.at(position, 4))
        if frame is None or frame.kind != first.kind:
            behind = skip_tags(content, position)  # live streams have tags between frames
            frame = _frame(content.at(behind, 4))
            if behind == position or frame is None or frame.kind != first.kind:
                break
            if not begins(content, behind) or _information(content, behind, frame)[0] is not None:
                break
            position = behind
        if count and _information(content, position, frame)[0] is not None:
            break
        if position + frame.size > content.size:
            missing = position + frame.size - content.size
            raise Damaged(f"truncated, the last {missing} bytes of its last frame are missing")
        if runs and runs[-1][1] == position:
            runs[-1] = runs[-1][0], position + frame.size
        else:
            runs.append((position, position + frame.size))
        count += 1
        position += frame.size
    if promised and count < promised - 1:  # some encoders count the information frame, too
        raise Damaged(f"truncated, its header promises {promised} frames but {count} are there")
    if count == 0:
        raise Damaged("it has an information frame but no sound")
    tag = tag if promised in (count, count + 1) else b""
    head = _information_frame(content.at(runs[0][0], 4), first, count, tag)
    pieces = [(content.file, start, end) for start, end in runs]
    trimmed = _trimmed(tag) if first.kind[1] == 3 else 0
    samples = count * first.samples - trimmed
    return Stream(View(head, *pieces), samples=samples, settling=_RESERVOIR * first.samples), position


def _information(content: Bytes, position: int, frame: _Frame) -> tuple[int | None, bytes]:
    """How many frames an information frame promises (None: it is no such frame; 0: it does not say), and the LAME tag
    in it."""
    data = content.at(position, frame.size)
    if data[36:40] == b"VBRI":
        return struct.unpack(">I", data[50:54])[0], b""
    mark = data[4 + frame.side :]
    if frame.kind[1] != 3 or mark[:4] not in (b"Xing", b"Info"):
        return None, b""
    flags = struct.unpack(">I", mark[4:8])[0]
    promised = struct.unpack(">I", mark[8:12])[0] if flags & 1 else 0
    tag = 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    return promised, mark[tag : tag + _LAME_TAG]


def _information_frame(header: bytes, frame: _Frame, count: int, tag: bytes) -> tuple[io.IOBase, int, int]:
    """A frame for the decoder that says how many follow. Layers I and II have none."""
    if frame.kind[1] != 3:
        return io.BytesIO(), 0, 0
    for index in range(1, 15):  # the smallest frame that holds it
        head = bytes((0xFF, header[1] | 1, index << 4 | header[2] & 0x0C, header[3]))
        size = _frame(head).size
        if size >= 4 + frame.side + 12 + _LAME_TAG:
            break
    content = head + bytes(frame.side) + b"Info" + struct.pack(">II", 1, count) + tag
    return io.BytesIO(content.ljust(size, b"\0")), 0, size


def _trimmed(tag: bytes) -> int:
    """Samples that the decoder leaves out: its own delay, and those before and after that a LAME tag says the encoder
    added."""
    before = after = 0
    if len(tag) >= 24 and tag[0]:
        before, after = tag[21] << 4 | tag[22] >> 4, (tag[22] & 15) << 8 | tag[23]
    return before + max(after, _DECODER_DELAY)
