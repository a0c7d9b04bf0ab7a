"""Segments decoded side by side: slots on the devices, and the host's loop that fills and empties them.

The loop moves slots and reads finished chunks of steps; everything that happens within a step happens on the devices.
What a slot makes depends on its request alone: not on the slot, on the slots beside it, or on when it joined them.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from ualm_jax.errors import UserError
from ualm_jax.generate import decode as programs
from ualm_jax.generate.job import Job, Reading
from ualm_jax.generate.past import Past
from ualm_jax.generate.prompts import bucket, place, shape_of, stack_prompts
from ualm_jax.generate.request import Request
from ualm_jax.generate.seats import Place, Seat, Seats
from ualm_jax.generate.slots import Places
from ualm_jax.generate.step import Work
from ualm_jax.generate.weights import make_weights
from ualm_jax.generate.work import beyond, work_of
from ualm_jax.models.audio_encoder import AudioEncoder
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.sharding import RULES
from ualm_jax.tokens.types import TokenGrid

STEPS = 25
"""Of a chunk: half a second of sound."""

_READ_AT_ONCE = 256  # positions of short prompts on one device; fewer would take as long


class Engine:
    """See the module's text. A mesh must be set where one is made; it stays the engine's.

    slots: segments at once. sequences: of the cache, by default two for each slot, as a guided one takes. Both are
    rounded up to the devices that share a batch. capacity: positions of a sequence, prompt and segment together.
    chunk: the most steps between two looks at the slots. work: all that requests will ask for, where that is known;
    else a step can do anything.
    """

    def __init__(
        self,
        model: UALM,
        *,
        slots: int = 8,
        sequences: int | None = None,
        capacity: int = 2048,
        chunk: int = STEPS,
        encoder: AudioEncoder | None = None,
        work: Work | None = None,
    ):
        self.architecture, self.encoder = model.architecture, encoder
        self.capacity, self.chunk, self._work = capacity, chunk, work
        self.mesh = jax.sharding.get_mesh()
        self._shards = int(np.prod([self.mesh.shape[axis] for axis in RULES["batch"]]))
        self._slots_each = -(-slots // self._shards)
        self._sequences_each = 2 * self._slots_each if sequences is None else -(-sequences // self._shards)
        self.slots = self._shards * self._slots_each
        self.weights = make_weights(model)
        self._state = programs.empty_slots(
            model.architecture,
            model.execution.compute_dtype,
            self.slots,
            self._shards * self._sequences_each,
            capacity,
        )
        self._seats = Seats(self._shards, self._slots_each, self._sequences_each)
        self._queue: deque[Job] = deque()
        self._running: dict[int, Job] = {}  # by slot, counted over all devices
        self._kept: list[Past] = []  # pasts that hold a sequence, the one used longest ago first
        self.steps = self.slot_steps = self.frames = 0  # so far: of the loop, of all slots together, of those of sound

    def submit(self, request: Request, past: Past | None = None) -> Job:
        """The request waits for its turn. past: of what its prompt begins with.

        Raises UserError for a request that does not fit.
        """
        job = Job(request, self.architecture.vocabulary, past)
        job.check(self.capacity)
        if self._work is not None:
            more = beyond(work_of([(request.modality, request.params, request.scored)]), self._work)
            if more:
                raise UserError(f"This answer asks for more than the model was limited to: {', '.join(more)}.")
        if request.guided and self._sequences_each < 2:
            raise UserError(
                "A guided answer takes two sequences, and this engine has one on each device: load the model with more "
                "of them (sequences), or ask without guidance (cfg_scale=1)."
            )
        self._queue.append(job)
        return job

    def run(self, requests: Iterable[Request]) -> Iterator[Job]:
        """Jobs of the requests, as they are done. `requests` is read no faster than slots become free."""
        source, waiting = iter(requests), []
        while True:
            while len(self._queue) < self.slots and (request := next(source, None)) is not None:
                waiting.append(self.submit(request))
            if not waiting:
                return
            self.advance()
            yield from [job for job in waiting if job.done]
            waiting = [job for job in waiting if not job.done]

    def advance(self, steps: int | None = None) -> None:
        """Fills free slots, then makes at most `steps` steps: those of a chunk, where nothing is said."""
        with jax.set_mesh(self.mesh):
            self._admit()
            if not self._running:
                return
            count = np.int32(min(steps or self.chunk, self.chunk))
            until_end = np.bool_(len(self._queue) > 0)  # somebody waits for the next free slot
            how = dict(room=self.chunk, work=self._work)
            self._state, chunk = programs.decode(self.weights, self._state, count, until_end, **how)
            chunk = jax.device_get(chunk)
            self.steps += int(chunk.count.max())
            self.slot_steps += int(chunk.count.sum())
            over = []
            for slot, job in list(self._running.items()):
                self.frames += int(chunk.count[slot]) if job.modality != "text" else 0
                made = slice(int(chunk.count[slot]))
                job.take(chunk.tokens[slot, made], chunk.logprobs[slot, made])
                if not chunk.live[slot] or job.over:
                    over += [slot] if chunk.live[slot] else []
                    if job.goes_on:
                        self._seats.free(self._running.pop(slot).seat, keep=False)
                        job.slide(self.capacity)
                        self._queue.appendleft(job)
                    else:
                        self._finish(slot)
            self._stop(over)

    def cancel(self, job: Job) -> None:
        """Nobody waits for the job any more."""
        if job in self._queue:
            self._queue.remove(job)
        for slot in [slot for slot, other in self._running.items() if other is job]:
            self._finish(slot)
            with jax.set_mesh(self.mesh):
                self._stop([slot])

    def forget(self, past: Past) -> None:
        """Nobody will follow it soon; its sequence becomes free."""
        if past in self._kept:
            self._kept.remove(past)
            self._seats.free_sequence(past.place)
            past.place = None

    def copy(self, past: Past) -> Past:
        """A second one: both can be followed."""
        other = Past(past.tokens, past.marks)
        if past.place is None or (free := self._seats.take_sequence(past.place.shard)) is None:
            return other
        shard = past.place.shard
        with jax.set_mesh(self.mesh):
            filled = programs.take(self._state, place(np.full(self._shards, past.place.sequence, np.int32)))
            self._insert(filled, [[[free]] if index == shard else [[]] for index in range(self._shards)])
        other.place = free
        self._kept.append(other)
        return other

    def _admit(self) -> None:
        """Jobs that wait begin, in their order, as long as there are seats."""
        admitted = []
        while self._queue and (seat := self._seat(self._queue[0])) is not None:
            job = self._queue.popleft()
            admitted.append((job, job.readings(seat)))
            if job.past is not None:
                job.past.place = None  # the job's now
        special = self._read([reading for _, readings in admitted for reading in readings])
        begun = []
        for job, readings in admitted:
            try:
                job.choose(special[readings[0].place])
                begun.append(job)
            except UserError as error:
                job.fail(error)
                self._seats.free(job.seat, keep=False)
        if begun:
            self._start(begun)

    def _seat(self, job: Job) -> Seat | None:
        """A seat for the job. Pasts that nobody has followed for long make room for it, where a slot is free."""
        past = job.past
        if past in self._kept:
            self._kept.remove(past)
        kept = None if past is None else past.place
        while (seat := self._seats.take(job.request.guided, kept)) is None:
            devices = self._seats.with_slots() if kept is None else self._seats.with_slots() & {kept.shard}
            helpful = [other for other in self._kept if other.place.shard in devices]
            if helpful:
                self.forget(helpful[0])
            elif kept is not None and not self._running:  # too few sequences for both: it is read anew
                self._seats.free_sequence(kept)
                past.place = kept = None
            else:
                if kept is not None:
                    self._kept.append(past)
                return None
        return seat

    def _read(self, readings: Sequence[Reading]) -> dict[Place, np.ndarray]:
        """Fills sequences of the cache. For each the logits of special tokens that would come next."""
        groups: dict[tuple, dict[tuple, list[Reading]]] = {}
        for reading in readings:
            shape = (bucket(len(reading.grid.tokens)), reading.behind > 0, shape_of(reading.heard, self._chunk_frames))
            # What is equal is read once on each device.
            again = reading.place if reading.behind else (reading.grid.tokens.tobytes(), id(reading.heard))
            groups.setdefault(shape, {}).setdefault((reading.place.shard, again), []).append(reading)
        special = {}
        for (length, follows, _), group in groups.items():
            length = min(length, self.capacity)
            # How many prompts are read at once depends on their length alone: so does, to the last bit, what is read.
            count = max(1, _READ_AT_ONCE // length)
            by_shard = [[same for same in group.values() if same[0].place.shard == n] for n in range(self._shards)]
            for first in range(0, max(map(len, by_shard)), count):
                together = [shard[first : first + count] for shard in by_shard]
                special |= self._read_together(length, follows, together, count)
        return special

    def _read_together(
        self, length: int, follows: bool, by_shard: list[list[list[Reading]]], count: int
    ) -> dict[Place, np.ndarray]:
        """Reads at most `count` prompts of one shape on each device, each into one sequence or several."""
        nothing = TokenGrid(*(np.zeros((0, self.architecture.vocabulary.num_streams), dtype) for dtype in (int, float)))
        firsts = [[same[0] for same in shard] + [None] * (count - len(shard)) for shard in by_shard]
        firsts = [first for shard in firsts for first in shard]
        batch = place(
            stack_prompts(
                [nothing if first is None else first.grid for first in firsts],
                [None if first is None else first.heard for first in firsts],
                length,
                self._chunk_frames,
            )
        )
        past = None
        if follows:
            sequences, lengths = (
                np.array([0 if first is None else value(first) for first in firsts], np.int32)
                for value in (lambda first: first.place.sequence, lambda first: first.behind)
            )
            past = programs.take(self._state, place(sequences))._replace(length=place(lengths))
        filled, special = programs.prefill(self.weights, batch, self.encoder, past)
        self._insert(filled, [[[reading.place for reading in same] for same in shard] for shard in by_shard])
        special = np.asarray(special)
        return {
            reading.place: special[shard * count + index]
            for shard, groups in enumerate(by_shard)
            for index, same in enumerate(groups)
            for reading in same
        }

    def _insert(self, filled, places: list[list[list[Place]]]) -> None:
        """places: for each device and each sequence of `filled` there, where it goes."""
        pairs = [[(i, p.sequence) for i, ps in enumerate(shard) for p in ps] for shard in places]
        count = _power_of_two(max(map(len, pairs)))
        none = (0, self._sequences_each)
        pairs = np.array([shard + [none] * (count - len(shard)) for shard in pairs], np.int32).reshape(-1, 2)
        self._state = programs.insert(self._state, filled, *place((pairs[:, 0], pairs[:, 1])))

    def _start(self, jobs: Sequence[Job]) -> None:
        by_shard = [[job for job in jobs if job.seat.shard == shard] for shard in range(self._shards)]
        count = _power_of_two(max(map(len, by_shard)))
        some = jobs[0].settings(self.capacity)
        nowhere = (self._slots_each, self._sequences_each, self._sequences_each)
        settings, places = [], []
        for shard in by_shard:
            settings += [job.settings(self.capacity) for job in shard] + [some] * (count - len(shard))
            places += [job.seat[1:] for job in shard] + [nowhere] * (count - len(shard))
        settings = jax.tree.map(lambda *values: np.stack(values), *settings)
        places = Places(*np.array(places, np.int32).T.copy())
        self._state = programs.start(self._state, *place((settings, places)))
        for job in jobs:
            self._running[job.seat.shard * self._slots_each + job.seat.slot] = job

    def _stop(self, slots: list[int]) -> None:
        if slots:
            goes_on = ~np.isin(np.arange(self.slots), slots)
            self._state = programs.stop(self._state, place(goes_on))

    def _finish(self, slot: int) -> None:
        job = self._running.pop(slot)
        keep = job.request.keep and job.modality is not None
        self._seats.free(job.seat, keep)
        job.done, job.past = True, None
        if keep:
            job.past = Past(*job.fed(), Place(job.seat.shard, job.seat.cond))
            self._kept.append(job.past)

    @property
    def _chunk_frames(self) -> int:
        return 1 if self.encoder is None else self.encoder.front_end.chunk_frames


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
