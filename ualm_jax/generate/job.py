"""A request on its way through an engine."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ualm_jax.errors import UserError
from ualm_jax.generate.past import Past, marks_of, rest_of
from ualm_jax.generate.prompts import check_heard, unconditional
from ualm_jax.generate.request import Generated, Request, finish
from ualm_jax.generate.seats import Place, Seat
from ualm_jax.generate.slots import Settings
from ualm_jax.tokens.types import TokenGrid
from ualm_jax.tokens.vocabulary import EOS, EOT, PAD, SPECIAL_TOKENS, Vocabulary


class Reading(NamedTuple):
    """What is to be read into a sequence of the cache. behind: positions that it holds already and keeps."""

    place: Place
    grid: TokenGrid
    heard: object
    behind: int


class Job:
    """done: there is a result, or an error. modality: None until the model has chosen it. past: what can be followed,
    where the request wants it kept. asked: the request; `request` is that of what is left to do, once audio has slid.
    """

    def __init__(self, request: Request, vocabulary: Vocabulary, past: Past | None):
        self.asked = self.request = request
        self.vocabulary, self.past = vocabulary, past
        self.modality = None if request.modality == "auto" else request.modality
        self.seat: Seat | None = None
        self.done = False
        self._error: UserError | None = None
        self._made: list[np.ndarray] = []
        self._logprobs: list[np.ndarray] = []
        self._kept: int | None = None
        self._forgotten = 0  # positions of the segment

    @property
    def tokens(self) -> Int[np.ndarray, "n S"]:
        """Positions of the segment so far in unified ids, those it began with too."""
        begun = self.asked.begun
        first = np.zeros((0, self.vocabulary.num_streams), np.int32) if begun is None else begun
        return np.concatenate([first, *self._made])[: self._kept]

    def check(self, capacity: int) -> None:
        """Raises UserError where the request does not fit into `capacity` positions, ValueError for a wrong one."""
        request = self.request
        check_heard([request.prompt], [request.heard])
        modalities = ("audio", "text") if self.modality is None else (self.modality,)
        for modality in modalities:
            least = 1 if modality == "text" else request.params.min_frames + self.vocabulary.num_codebooks
            if request.slide:
                least = min(least, 4 * self.vocabulary.num_codebooks)
            if self._length + least > capacity:
                what, instead = "prompt", "make the prompt or the sound shorter"
                if request.keep:
                    what, instead = "conversation", "begin a new one, or load the model with a larger window"
                raise UserError(
                    f"The {what} takes {self._length} positions and its answer at least {least}, but there is room for "
                    f"{capacity}: {instead}."
                )
        if request.slide and request.begun is not None and len(request.begun) > (capacity - self._length) // 2:
            self.slide(capacity)

    def readings(self, seat: Seat) -> list[Reading]:
        """What must be read before its first step, in the sequences of `seat`."""
        request, self.seat = self.request, seat
        place, behind = Place(seat.shard, seat.cond), 0
        if self.past is not None and self.past.place == place:
            behind = self.past.shared(request.prompt, marks_of(request.prompt, request.heard))
        grid, heard = rest_of(request.prompt, request.heard, behind)
        found = [Reading(place, self._with_begun(grid), heard, behind)]
        if seat.uncond != seat.cond:
            as_trained = not (request.params.reference_behaviour or request.params.reference_context)
            grid = request.negative or unconditional(request.prompt, as_trained)
            found.append(Reading(Place(seat.shard, seat.uncond), self._with_begun(grid), None, 0))
        return found

    def choose(self, special_logits: Float[np.ndarray, " V"]) -> None:
        """Settles the modality. Raises UserError for one that cannot be generated."""
        if self.modality is None:
            self.modality = self.request.choose(special_logits)

    def settings(self, capacity: int) -> Settings:
        """Of its slot, without the axis of slots; the segment ends where `capacity` does."""
        limit = min(self.request.steps(self.modality, self.vocabulary), capacity - self._length)
        return self.request.settings(self.modality, limit, self.vocabulary)

    @property
    def goes_on(self) -> bool:
        """Whether its slot has ended for want of room alone."""
        made = self.tokens
        ended = len(made) - self._forgotten >= self.request.steps(self.modality, self.vocabulary)
        return self.request.slide and self.modality != "text" and not ended and made[-1, 0] not in (EOS, EOT, PAD)

    def slide(self, capacity: int) -> None:
        """Forgets positions of the audio, so that the others fill half the room beside the prompt."""
        made, keep = self.tokens, (capacity - self._length) // 2
        start = len(made) - keep
        self.request = dataclasses.replace(self.asked, modality=self.modality or self.asked.modality)
        self.request = self.request.slid(made, start, self.vocabulary)
        if self._made:
            self.request = dataclasses.replace(self.request, given=None)
        self._forgotten = start

    def take(self, made: Int[np.ndarray, "n S"], logprobs: Float[np.ndarray, "n S"]) -> None:
        """The next steps."""
        self._made.append(made)
        self._logprobs.append(logprobs)
        damaged = PAD in made[:, 0]  # `result` will say so
        if self.modality == "text" and self.request.until is not None and not damaged:
            tokens, _ = finish(self.tokens, "text", self.vocabulary, False)
            self._kept = self.request.until(tokens)

    @property
    def over(self) -> bool:
        """Whether its text is over before the model ends it."""
        return self._kept is not None

    def fail(self, error: UserError) -> None:
        self.done, self._error = True, error

    def fed(self) -> tuple[Int[np.ndarray, "n S"], Int[np.ndarray, " n"]]:
        """Tokens and marks (see `Past`) of the positions that its sequence holds: all but the last one sampled."""
        prompt, made = self.request.prompt, self.tokens[self._forgotten :]
        if self._forgotten:
            made = np.concatenate([self.request.begun, made[len(self.request.begun) :]])
        tokens = np.concatenate([prompt.tokens, _opening(self.modality, self.vocabulary), made[: len(made) - 1]])
        marks = marks_of(prompt, self.request.heard)
        return tokens, np.pad(marks, (0, len(tokens) - len(marks)))

    def result(self) -> Generated:
        """Raises the UserError that stopped it, if one did."""
        if self._error is not None:
            raise self._error
        reference = self.request.params.reference_behaviour
        tokens, end = finish(self.tokens, self.modality, self.vocabulary, reference)
        logprobs = np.concatenate(self._logprobs)[: self._kept] if self.request.scored else None
        return Generated(self.modality, tokens, "eos" if self.over else end, logprobs)

    @property
    def _length(self) -> int:
        request = self.request
        return max(len(grid.tokens) for grid in (request.prompt, request.negative or request.prompt))

    def _with_begun(self, grid: TokenGrid) -> TokenGrid:
        """The grid and, of a segment that has begun, all but the position which its first step reads."""
        begun = self.request.begun
        if begun is None:
            return grid
        tokens = np.concatenate([grid.tokens, _opening(self.modality, self.vocabulary), begun[:-1]])
        return TokenGrid(tokens.astype(np.int32), np.zeros(tokens.shape, np.float32), grid.clips)


def _opening(modality: str, vocabulary: Vocabulary) -> Int[np.ndarray, "1 S"]:
    row = np.zeros((1, vocabulary.num_streams), np.int32)
    row[0, 0] = SPECIAL_TOKENS.index(modality)
    return row
