"""Ogg: pages with a header each (RFC 3533). Several sounds may stand one after the other (chained streams)."""

from ualm_jax.audio.stream import Bytes, Damaged, Stream

_CONTINUED, _FIRST = 1, 2  # bits of a page header's flags; 4 marks the last page, which many writers forget
_HEADER = 27  # bytes


def walk(content: Bytes, position: int) -> tuple[Stream, int]:
    """The link of a chain that begins here, and where it ends: at the first page of the next, or at what is no page.

    Whether the last page is marked as such says little, as writers that were stopped leave the mark out. What is
    missing shows otherwise: in a page that is cut, a page number that is skipped, or a packet without an end.
    Raises Damaged for these.
    """
    start, numbers, unfinished, headers = position, {}, {}, True
    ends: dict[bytes, tuple[int, int]] = {}  # samples up to the last page but one, and up to the last
    while content.at(position, 4) == b"OggS":
        head = content.at(position, _HEADER)
        lengths = content.at(position + _HEADER, head[26]) if len(head) == _HEADER else b""
        size = _HEADER + len(lengths) + sum(lengths)
        if len(head) < _HEADER or len(lengths) < head[26] or position + size > content.size:
            raise Damaged(f"truncated, its last Ogg page begins at byte {position} and does not end")
        flags, serial, number = head[5], head[14:18], int.from_bytes(head[18:22], "little")
        if flags & _FIRST and not headers:
            break
        headers = bool(flags & _FIRST)
        if not headers:
            if serial not in numbers:
                raise Damaged(f"damaged, the Ogg page at byte {position} belongs to a stream that never began")
            if number != (numbers[serial] + 1) % 2**32:
                raise Damaged(f"damaged, Ogg pages are missing before byte {position}")
            if unfinished[serial] != bool(flags & _CONTINUED):
                raise Damaged(f"damaged, a packet has no end or no beginning before byte {position}")
        numbers[serial] = number
        unfinished[serial] = lengths[-1:] == b"\xff"
        if (samples := int.from_bytes(head[6:14], "little", signed=True)) >= 0:
            ends[serial] = ends.get(serial, (0, 0))[1], samples
        position += size
    if any(unfinished.values()):
        raise Damaged("truncated, the last packet of its last Ogg page does not end")
    # Where it should find a place in the last page, libsndfile finds another one in Vorbis (1.2.2 at least).
    last_page = max(max(0, last - before) for before, last in ends.values()) if ends else 0
    return Stream(content.view(start, position), unseekable=last_page), position
