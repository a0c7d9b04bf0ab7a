"""FLAC: its header may promise a length, or say that it was not known; only decoding tells where it ends."""

import io

from ualm_jax.audio.stream import Bytes, Damaged, Stream, View

_BEGINNINGS = b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22"  # too long to occur among samples by chance
_COUNT = 21  # bytes before the number of samples, which has 36 bits


def walk(content: Bytes, position: int) -> tuple[Stream, int]:
    """The sound that begins here, and where the next one begins, or the end of the file.

    The decoder is shown a header without a length, so that it goes on to the end whatever the header promises.
    """
    count = content.at(position + _COUNT, 5)
    if len(count) < 5:
        raise Damaged("truncated, its FLAC header does not end")
    end = _next(content, position + _COUNT)
    unknown = io.BytesIO(bytes((count[0] & 0xF0, 0, 0, 0, 0)))
    first, behind = position + _COUNT, position + _COUNT + 5
    view = View((content.file, position, first), (unknown, 0, 5), (content.file, behind, end))
    return Stream(view, promised=(int.from_bytes(count) & 0xFFFFFFFFF) or None), end


def _next(content: Bytes, position: int) -> int:
    window = 1 << 20
    while position < content.size:
        data = content.at(position, window)
        found = [place for beginning in _BEGINNINGS if (place := data.find(beginning)) >= 0]
        if found:
            return position + min(found)
        position += window - len(_BEGINNINGS[0]) + 1
    return content.size
