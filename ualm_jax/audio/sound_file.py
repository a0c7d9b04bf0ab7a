"""What a sound file holds, by its own marks: one sound, or several one after the other, each of them whole."""

import io

from ualm_jax.audio import chunks, flac, mpeg, ogg
from ualm_jax.audio.stream import Bytes, Damaged, Stream, skip_tags

_CRUMBS = 64  # bytes after a sound that are too few to be one


def find_streams(file: io.IOBase) -> list[Stream]:
    """The sounds of a file in order. Reads marks and headers, no samples.

    Raises Damaged where one is cut, where something else stands behind one, and where there is none.
    """
    content, streams = Bytes(file), []
    position = skip_tags(content, 0)
    while position < content.size:
        walk = _walker(content, position)
        if walk is None and not streams and (first := mpeg.find(content, position)) is not None:
            walk, position = mpeg.walk, first
        if walk is None:
            break
        stream, position = walk(content, position)
        streams.append(stream)
        position = skip_tags(content, position)
    rest = content.size - position
    if not streams:
        raise Damaged("not a readable sound file (expected wav, flac, ogg, mp3, aiff, au, caf, w64 or NIST)")
    if rest > _CRUMBS:
        raise Damaged(f"damaged, the {rest} bytes from byte {position} on are neither sound nor a known tag")
    return streams


def _walker(content: Bytes, position: int):
    mark = content.at(position, 4)
    if mark in chunks.MARKS:
        return chunks.walk
    if mark == b"OggS":
        return ogg.walk
    if mark == b"fLaC":
        return flac.walk
    return mpeg.walk if mpeg.begins(content, position) else None
