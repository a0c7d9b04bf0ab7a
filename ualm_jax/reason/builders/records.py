"""Traces as records to learn from: first attempts that are read and not learnt, and pairs of better and worse."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
from jaxtyping import Int

from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.codecs.base import Codec
from ualm_jax.data.dataset.audio_input import to_flac
from ualm_jax.data.dataset.pairs import conversations_of, join_pair
from ualm_jax.data.dataset.records import Record
from ualm_jax.data.raw.soundscript.conversations import CRITICISE, LISTEN, MAKE_RIGHT, PLAN_FIRST
from ualm_jax.generate.inputs import audible as turned_down
from ualm_jax.reason.builders.traces import Take, Trace
from ualm_jax.reason.plans import audible
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.rich_caption import parse
from ualm_jax.tokens.tokenizer import Tokenizer
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

Part = tuple[Message, bytes | None]
"""A message, and its sound as FLAC where one is heard."""


@dataclasses.dataclass(frozen=True)
class Records:
    """Makes records for a model with this tokenizer and codec. source: name of the records' source. made_by: which
    model answered and which writer wrote; becomes part of every record."""

    tokenizer: Tokenizer
    codec: Codec
    vocabulary: Vocabulary
    source: str
    made_by: dict[str, Any]

    def reflection(self, trace: Trace, critique: str, right: Int[np.ndarray, "T Q"] | None) -> Record:
        """A first attempt, which is not learnt, what is heard in it, a critique, and the right sound. right: None where
        the attempt was right; then the record ends with the critique."""
        parts = [*self._asked(trace), self._plan(trace)]
        parts += self._listened(trace, trace.takes[0], critique, again=right is not None)
        if right is not None:
            parts.append(self._sound(right))
        return self._record(trace, parts, None, {"critique": critique, "heard": trace.takes[0].heard})

    def answers(self, better: Trace, worse: Trace) -> Record:
        """A pair of two answers to one prompt, each with the plan that it was made from."""
        sides = [[self._plan(trace), self._sound(trace.takes[0].codes)] for trace in (better, worse)]
        scores = {"chosen": _facts(better, better.takes[0]), "rejected": _facts(worse, worse.takes[0])}
        return self._pair(better, self._asked(better), *sides, scores)

    def with_and_without(self, trace: Trace, better: int) -> Record:
        """A pair: the first version as it is (better: 0), and the one that reflection has led to (better: 1)."""
        first, second = trace.takes
        without = [self._sound(first.codes)]
        reflected = [*self._listened(trace, first, first.critique, again=True), self._sound(second.codes)]
        sides = (reflected, without) if better else (without, reflected)
        takes = (second, first) if better else (first, second)
        scores = {side: _facts(trace, take) for side, take in zip(("chosen", "rejected"), takes, strict=True)}
        return self._pair(trace, [*self._asked(trace), self._plan(trace)], *sides, scores)

    def _asked(self, trace: Trace) -> list[Part]:
        return [self._text(Role.USER, PLAN_FIRST.format(trace.wanted.prompt))]

    def _plan(self, trace: Trace) -> Part:
        return self._text(Role.ASSISTANT, trace.plan)

    def _listened(self, trace: Trace, take: Take, critique: str, again: bool) -> list[Part]:
        """The first attempt, read only, and all that is said of it."""
        wanted = audible(parse(trace.plan)).write()
        parts = [self._sound(take.codes, learn=False), self._text(Role.USER, LISTEN), self._heard(take.codes)]
        parts += [self._text(Role.ASSISTANT, take.heard), self._text(Role.USER, CRITICISE.format(wanted))]
        parts.append(self._text(Role.ASSISTANT, critique))
        return [*parts, self._text(Role.USER, MAKE_RIGHT)] if again else parts

    def _text(self, role: Role, text: str) -> Part:
        return Message(role, Modality.TEXT, np.array(self.tokenizer.encode(text), np.int32)), None

    def _sound(self, codes: Int[np.ndarray, "T Q"], learn: bool = True) -> Part:
        return Message(Role.ASSISTANT, Modality.AUDIO, np.asarray(codes, np.int32), learn=learn), None

    def _heard(self, codes: Int[np.ndarray, "T Q"]) -> Part:
        """The message that `Session.listen` would let the model hear."""
        wav, rate = turned_down(self.codec.decode(codes)), self.codec.sample_rate
        wav = wav if rate == SAMPLE_RATE else soxr.resample(wav, rate, SAMPLE_RATE, quality="HQ")
        return Message(Role.USER, Modality.CLIP, len(wav)), to_flac(wav)

    def _pair(
        self, trace: Trace, prompt: Sequence[Part], chosen: Sequence[Part], rejected: Sequence[Part], scene: dict
    ) -> Record:
        parts, pair = join_pair(prompt, chosen, rejected)
        return self._record(trace, parts, pair, scene)

    def _record(
        self, trace: Trace, parts: Sequence[Part], pair: tuple[int, int] | None, scene: dict[str, Any]
    ) -> Record:
        wanted = trace.wanted
        scene = {"from": wanted.id, "rich_caption": wanted.truth, "made_by": self.made_by, "seed": trace.seed} | scene
        messages = tuple(message for message, _ in parts)
        clips = tuple(sound for _, sound in parts if sound is not None)
        record = Record(f"{wanted.id}-{wanted.index}", self.source, messages, wanted.prompt, scene, 0, clips, pair)
        return dataclasses.replace(record, length=sum(map(self._length, conversations_of(record))))

    def _length(self, conversation) -> int:
        """Number of positions, without the encoder's frames."""
        messages = [
            dataclasses.replace(message, content=0) if message.modality == Modality.CLIP else message
            for message in conversation.messages
        ]
        return len(build_grid(messages, self.vocabulary).tokens)


def _facts(trace: Trace, take: Take) -> dict[str, Any]:
    return {"seed": trace.seed, "score": take.score, "plan": trace.plan}
