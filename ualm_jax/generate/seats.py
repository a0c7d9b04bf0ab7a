"""Which slots and sequences of the cache are free, on which device."""

from typing import NamedTuple


class Place(NamedTuple):
    """A sequence of the cache, by its index on the device `shard`."""

    shard: int
    sequence: int


class Seat(NamedTuple):
    """A slot and its sequences, by their indices on the device `shard`; unguided, `uncond` is `cond`."""

    shard: int
    slot: int
    cond: int
    uncond: int


class Seats:
    """`slots` and `sequences` are those of each of `shards` devices."""

    def __init__(self, shards: int, slots: int, sequences: int):
        self._slots = [list(range(slots)) for _ in range(shards)]
        self._sequences = [list(range(sequences)) for _ in range(shards)]

    def take(self, guided: bool, kept: Place | None = None) -> Seat | None:
        """A free seat, on the device that has most room; None where there is none.

        kept: the sequence that is to be the seat's conditional one, if that was kept.
        """
        wanted = guided + (kept is None)
        shards = range(len(self._slots)) if kept is None else [kept.shard]
        able = [s for s in shards if self._slots[s] and len(self._sequences[s]) >= wanted]
        if not able:
            return None
        shard = max(able, key=lambda s: len(self._slots[s]))
        cond = self._sequences[shard].pop(0) if kept is None else kept.sequence
        return Seat(shard, self._slots[shard].pop(0), cond, self._sequences[shard].pop(0) if guided else cond)

    def with_slots(self) -> set[int]:
        """Devices that have a free slot."""
        return {shard for shard, free in enumerate(self._slots) if free}

    def take_sequence(self, shard: int) -> Place | None:
        """A free sequence on this device."""
        return Place(shard, self._sequences[shard].pop(0)) if self._sequences[shard] else None

    def free(self, seat: Seat, keep: bool) -> None:
        """keep: all but the conditional sequence."""
        self._slots[seat.shard].append(seat.slot)
        self._sequences[seat.shard] += {seat.uncond} - {seat.cond}
        if not keep:
            self.free_sequence(Place(seat.shard, seat.cond))

    def free_sequence(self, place: Place) -> None:
        self._sequences[place.shard].append(place.sequence)
