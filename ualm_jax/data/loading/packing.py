"""Which conversations are packed into which batch row: decided from lengths alone, before anything is read.

Each source is an endless stream of its own, shuffled anew every epoch. A draw goes to the source that is furthest
behind its share of the tokens so far, so that shares hold over any stretch, not only on average. A conversation goes
into the fullest bin that has room for it; there is a bounded number of them. A bin that is given out is a batch row.

Everything here is a function of (seed, sources, sizes): every process plans all rows and reads only its own.
"""

import bisect
import dataclasses
import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Bool

from ualm_jax.data.dataset.audio_input import Size
from ualm_jax.errors import UserError

_PATIENCE = 4  # a bin is given out at the latest when this many times `bins` have been begun after it


@runtime_checkable
class Sizes(Protocol):
    """Sizes of the conversations of a source, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Size: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Supply:
    """A source of the mixture.

    key: identifies its content. share: of all tokens. name: what error messages call it.
    skip: conversations that are passed over; None where there are none.
    """

    key: str
    share: float
    sizes: Sizes
    name: str = ""
    skip: Bool[np.ndarray, "R"] | None = None


class Item(NamedTuple):
    """A conversation of a batch row. position: in the source's endless stream; index: of its record."""

    source: int
    position: int
    index: int


class Given(NamedTuple):
    """What rows that were given out hold of a source.

    tokens: positions of its conversations before any condition is dropped.
    conversations: how many, with those that were passed over.
    """

    tokens: int
    conversations: int


@dataclasses.dataclass
class _Stream:
    """position: conversations drawn. tokens: positions drawn. credit: tokens that it is behind its share."""

    position: int = 0
    tokens: int = 0
    credit: float = 0.0


@dataclasses.dataclass
class _Bin:
    """serial: how many were begun before. room: free positions. slots: free mel windows."""

    serial: int
    room: int
    slots: int
    items: list[Item] = dataclasses.field(default_factory=list)

    def add(self, item: Item, size: Size) -> None:
        self.items.append(item)
        self.room -= size.length
        self.slots -= size.windows


class Planner:
    """An endless iterator over batch rows, each a list of items.

    seq_len, audio_slots: positions and mel windows of a row. bins: rows that are filled at the same time.
    A conversation is given out before 5 * bins + 1 more bins have been begun since it was drawn.
    """

    def __init__(self, supplies: Sequence[Supply], *, seed: int, seq_len: int, audio_slots: int, bins: int):
        self._supplies, self._seed = tuple(supplies), seed
        self._seq_len, self._audio_slots, self._max_bins = seq_len, audio_slots, bins
        self._streams = [_Stream() for _ in self._supplies]
        self._begun = 0
        self._bins: dict[int, _Bin] = {}  # by serial, oldest first
        self._by_room: list[tuple[int, int]] = []  # (room, serial), sorted

    def __iter__(self) -> "Planner":
        return self

    def __next__(self) -> list[Item]:
        while True:
            item, size = self._draw()
            chosen, full = self._find(size), None
            if chosen is not None:
                self._by_room.remove((chosen.room, chosen.serial))
            else:
                if len(self._bins) == self._max_bins:
                    full = self._fullest()
                    self._by_room.remove((full.room, full.serial))
                    del self._bins[full.serial]
                chosen = self._bins[self._begun] = _Bin(self._begun, self._seq_len, self._audio_slots)
                self._begun += 1
            chosen.add(item, size)
            bisect.insort(self._by_room, (chosen.room, chosen.serial))
            if full is not None:
                return full.items

    def get_state(self) -> dict[str, Any]:
        """JSON-able; the same on every process."""
        return {
            "sources": [
                [supply.key, stream.position, stream.tokens, stream.credit, supply.name]
                for supply, stream in zip(self._supplies, self._streams, strict=True)
            ],
            "begun": self._begun,
            "bins": [
                [each.serial, [[item.source, item.position] for item in each.items]] for each in self._bins.values()
            ],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where `get_state` was called. Sources that are not in it begin now.

        Raises UserError where a source is gone or holds other content.
        """
        places = self._places(state)
        self._streams = [_Stream() for _ in self._supplies]
        for place, (_, *values) in zip(places, state["sources"], strict=True):
            self._streams[place] = _Stream(*values[:3])
        self._begun, self._bins, self._by_room = state["begun"], {}, []
        for serial, items in _bins(state):
            made = self._bins[serial] = _Bin(serial, self._seq_len, self._audio_slots)
            for source, position in items:
                item = self._item(places[source], position)
                made.add(item, self._supplies[item.source].sizes[item.index])
            bisect.insort(self._by_room, (made.room, serial))

    def given(self, state: dict[str, Any]) -> list[Given]:
        """What the rows up to `state` hold of each source: what was drawn less what waits in bins."""
        found = [Given(0, 0) for _ in self._supplies]
        places = self._places(state)
        for place, (_, position, tokens, *_) in zip(places, state["sources"], strict=True):
            found[place] = Given(tokens, position)
        for _, items in _bins(state):
            for source, position in items:
                place = places[source]
                waiting = self._supplies[place].sizes[self._item(place, position).index]
                found[place] = Given(found[place].tokens - waiting.length, found[place].conversations - 1)
        return found

    def _places(self, state: dict[str, Any]) -> list[int]:
        """For each source of a saved state, its index among our sources."""
        places = {supply.key: index for index, supply in enumerate(self._supplies)}
        names = {supply.name for supply in self._supplies if supply.name}
        for key, *_, name in ([*source, ""][:5] for source in state["sources"]):  # the name is missing in old states
            if key in places:
                continue
            if name in names:
                raise UserError(
                    f"{name}: holds other data than when the position was saved ({key} then); put that data back, or "
                    "start a new run"
                )
            raise UserError(
                f"data.sources lacks {name or key}, which the saved position reads from; keep it, with weight 0 if "
                "nothing more shall be read from it"
            )
        return [places[key] for key, *_ in state["sources"]]

    def _draw(self) -> tuple[Item, Size]:
        shares = [supply.share for supply in self._supplies]
        source = max((index for index, share in enumerate(shares) if share > 0), key=lambda i: self._streams[i].credit)
        supply, stream = self._supplies[source], self._streams[source]
        while True:
            item = self._item(source, stream.position)
            stream.position += 1
            if supply.skip is None or not supply.skip[item.index]:
                break
        size = supply.sizes[item.index]
        stream.tokens += size.length
        stream.credit -= size.length
        for other, share in zip(self._streams, shares, strict=True):
            other.credit += share * size.length
        return item, size

    def _item(self, source: int, position: int) -> Item:
        supply = self._supplies[source]
        epoch, place = divmod(position, len(supply.sizes))
        seed = zlib.crc32(f"{self._seed}/{supply.key}/{epoch}".encode())
        return Item(source, position, _shuffled(place, len(supply.sizes), seed))

    def _find(self, size: Size) -> _Bin | None:
        """The bin with the least room that still has enough."""
        for place in range(bisect.bisect_left(self._by_room, (size.length, -1)), len(self._by_room)):
            found = self._bins[self._by_room[place][1]]
            if found.slots >= size.windows:
                return found
        return None

    def _fullest(self) -> _Bin:
        """The bin to give out: the fullest one, unless the oldest has waited too long."""
        oldest = next(iter(self._bins.values()))
        if self._begun - oldest.serial > _PATIENCE * self._max_bins:
            return oldest
        if self._audio_slots == 0:
            return self._bins[self._by_room[0][1]]
        # A bin is full if it has no positions or no windows left.
        return min(self._bins.values(), key=lambda each: min(each.room / self._seq_len, each.slots / self._audio_slots))


@functools.lru_cache(maxsize=1 << 14)
def _shuffled(place: int, size: int, seed: int) -> int:
    """What stands at `place` of `size` shuffled records.

    Kept, as whatever waits in bins is asked for again whenever progress is told: of a handful of records, each answer
    takes milliseconds. It is found by walking through at least 2 ** 16 numbers until one of them is a record.
    """
    return grain.experimental.index_shuffle(place, max_index=size - 1, seed=seed, rounds=4)


def _bins(state: dict[str, Any]) -> list[Any]:
    return state["bins"] if "bins" in state else state["rows"]  # what it was called until version 0.1
