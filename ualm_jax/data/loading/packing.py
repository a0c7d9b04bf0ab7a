"""Which conversations stand in which batch row: decided from lengths alone, before anything is read.

Each source is an endless stream of its own, shuffled anew every epoch. A draw goes to the source that is furthest
behind its share of the tokens so far, so that shares hold over any stretch, not only on average. What is drawn goes
into one of a bounded number of open rows, the fullest it fits in.

Everything here is a function of (seed, sources, sizes): every process plans all rows and reads only its own.
"""

import bisect
import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain

from ualm_jax.data.dataset.audio_input import Size
from ualm_jax.errors import UserError

_PATIENCE = 4  # a row is given out when this many times the open rows were begun after it


@runtime_checkable
class Sizes(Protocol):
    """Sizes of the conversations of a source, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Size: ...


@dataclasses.dataclass(frozen=True)
class Supply:
    """A source as the plan sees it. key: stays the same whatever other sources there are. share: of all tokens."""

    key: str
    share: float
    sizes: Sizes


class Item(NamedTuple):
    """A conversation of a batch row. position: in the source's endless stream; index: of its record."""

    source: int
    position: int
    index: int


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What has been drawn from a source: rows of token grids (tokens), and conversations."""

    tokens: int
    conversations: int


@dataclasses.dataclass
class _Stream:
    """credit: rows by which a source is behind its share."""

    position: int = 0
    tokens: int = 0
    credit: float = 0.0


@dataclasses.dataclass
class _Row:
    serial: int
    free: int
    slots: int  # mel windows it can still take
    items: list[Item] = dataclasses.field(default_factory=list)

    def add(self, item: Item, size: Size) -> None:
        self.items.append(item)
        self.free -= size.rows
        self.slots -= size.windows


class Planner:
    """An endless iterator over batch rows, each a list of items.

    seq_len, audio_slots: rows of token grids, and mel windows, that a batch row holds.
    open_rows: batch rows that are filled at the same time.
    A conversation drawn is given out before 5 * open_rows + 1 more batch rows have been begun.
    """

    def __init__(self, supplies: Sequence[Supply], *, seed: int, seq_len: int, audio_slots: int, open_rows: int):
        self._supplies, self._seed = tuple(supplies), seed
        self._seq_len, self._audio_slots, self._open_rows = seq_len, audio_slots, open_rows
        self._streams = [_Stream() for _ in self._supplies]
        self._begun = 0
        self._rows: dict[int, _Row] = {}  # by serial, oldest first
        self._by_room: list[tuple[int, int]] = []  # (free, serial), sorted

    def __iter__(self) -> "Planner":
        return self

    def __next__(self) -> list[Item]:
        while True:
            item, size = self._draw()
            row, ripe = self._find(size), None
            if row is not None:
                self._by_room.remove((row.free, row.serial))
            else:
                if len(self._rows) == self._open_rows:
                    ripe = self._ripest()
                    self._by_room.remove((ripe.free, ripe.serial))
                    del self._rows[ripe.serial]
                row = self._rows[self._begun] = _Row(self._begun, self._seq_len, self._audio_slots)
                self._begun += 1
            row.add(item, size)
            bisect.insort(self._by_room, (row.free, row.serial))
            if ripe is not None:
                return ripe.items

    def drawn(self) -> list[Drawn]:
        """For each source."""
        return [Drawn(stream.tokens, stream.position) for stream in self._streams]

    def get_state(self) -> dict[str, Any]:
        """JSON-able; the same on every process."""
        return {
            "sources": [
                [supply.key, stream.position, stream.tokens, stream.credit]
                for supply, stream in zip(self._supplies, self._streams, strict=True)
            ],
            "begun": self._begun,
            "rows": [[row.serial, [[item.source, item.position] for item in row.items]] for row in self._rows.values()],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called; new sources begin there. Raises UserError where one is gone."""
        places = {supply.key: index for index, supply in enumerate(self._supplies)}
        saved = [key for key, *_ in state["sources"]]
        gone = [key for key in saved if key not in places]
        if gone:
            raise UserError(
                f"data.sources lacks {', '.join(gone)}, which the saved position reads from; keep it, with weight 0 "
                "if nothing more shall be read from it"
            )
        self._streams = [_Stream() for _ in self._supplies]
        for key, *values in state["sources"]:
            self._streams[places[key]] = _Stream(*values)
        self._begun, self._rows, self._by_room = state["begun"], {}, []
        for serial, items in state["rows"]:
            row = self._rows[serial] = _Row(serial, self._seq_len, self._audio_slots)
            for source, position in items:
                item = self._item(places[saved[source]], position)
                row.add(item, self._supplies[item.source].sizes[item.index])
            bisect.insort(self._by_room, (row.free, serial))

    def _draw(self) -> tuple[Item, Size]:
        shares = [supply.share for supply in self._supplies]
        source = max((index for index, share in enumerate(shares) if share > 0), key=lambda i: self._streams[i].credit)
        stream = self._streams[source]
        item = self._item(source, stream.position)
        size = self._supplies[source].sizes[item.index]
        stream.position += 1
        stream.tokens += size.rows
        stream.credit -= size.rows
        for other, share in zip(self._streams, shares, strict=True):
            other.credit += share * size.rows
        return item, size

    def _item(self, source: int, position: int) -> Item:
        supply = self._supplies[source]
        epoch, place = divmod(position, len(supply.sizes))
        seed = zlib.crc32(f"{self._seed}/{supply.key}/{epoch}".encode())
        index = grain.experimental.index_shuffle(place, max_index=len(supply.sizes) - 1, seed=seed, rounds=4)
        return Item(source, position, index)

    def _find(self, size: Size) -> _Row | None:
        """The open row with the least room that still has enough."""
        for place in range(bisect.bisect_left(self._by_room, (size.rows, -1)), len(self._by_room)):
            row = self._rows[self._by_room[place][1]]
            if row.slots >= size.windows:
                return row
        return None

    def _ripest(self) -> _Row:
        oldest = next(iter(self._rows.values()))
        if self._begun - oldest.serial > _PATIENCE * self._open_rows:
            return oldest
        if self._audio_slots == 0:
            return self._rows[self._by_room[0][1]]
        # Full is a row that has no room or no window left.
        return min(self._rows.values(), key=lambda row: min(row.free / self._seq_len, row.slots / self._audio_slots))
