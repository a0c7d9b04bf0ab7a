"""What every reader of raw data yields: conversations of texts and sounds that are not tokens yet."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import soxr
from jaxtyping import Float, Float32

from ualm_jax.data.raw.sound_source import LeftOut, SoundSource
from ualm_jax.errors import UserError
from ualm_jax.tokens.tasks import TASKS
from ualm_jax.tokens.types import Modality, Role


@runtime_checkable
class Sound(Protocol):
    """Sound that has not been read yet. `read` raises UserError where it can not be."""

    def read(self, sample_rate: int) -> Float32[np.ndarray, "N"]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Waveform:
    """Sound in memory: a mono waveform [N], full scale 1, at `sample_rate` Hz."""

    wav: Float[np.ndarray, "N"]
    sample_rate: int

    def read(self, sample_rate: int) -> Float32[np.ndarray, "N"]:
        wav = self.wav.astype(np.float32)
        if sample_rate == self.sample_rate or not np.isfinite(wav).all():  # which the reader's checks will find
            return wav
        return soxr.resample(wav, self.sample_rate, sample_rate, quality="HQ")


@dataclasses.dataclass(frozen=True, eq=False)
class RawMessage:
    """A turn, or a part of one, in one modality. content: a text, or the sound. The rest: see tokens.Message."""

    role: Role
    modality: Modality
    content: str | Any
    audio_tag: str = "audio"
    learn: bool | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class RawConversation:
    """id: unique within the source. caption, scene: see records.Record. unused: fields of the raw record that are not
    used. pair: two answers to one prompt, see records.Record."""

    id: str
    messages: tuple[RawMessage, ...]
    caption: str = ""
    scene: dict[str, Any] | None = None
    unused: tuple[str, ...] = ()
    pair: tuple[int, int] | None = None


@runtime_checkable
class ConversationSource(Protocol):
    """Random access to conversations. Pure: the same index gives the same conversation in any process.

    `source[index]` raises BadRecord where that one record is unusable and IndexError outside 0..len-1.
    left_out: what it passes over, other than records.
    A source may have `digest(indices: range)`, too: as `fingerprint`, but the same where only other records differ.
    """

    name: str
    left_out: Sequence[LeftOut]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RawConversation: ...

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able, and different for any two sources that may give different conversations."""
        ...


def sound_message(role: Role, sound: Sound, audio_tag: str = "audio", learn: bool | None = None) -> RawMessage:
    """The assistant's sounds are target audio and become codes; those of others are audio input and stay sound."""
    return RawMessage(role, Modality.AUDIO if role == Role.ASSISTANT else Modality.CLIP, sound, audio_tag, learn)


def text_message(role: Role, text: str) -> RawMessage:
    return RawMessage(role, Modality.TEXT, text)


class CaptionedConversations:
    """Captioned sounds as conversations of a named task (tokens/tasks.py).

    In tasks with target audio the caption comes first and then the sound. In tasks with audio input `question` is asked
    about the sound, and the caption is the answer. Raises UserError for a task that needs something else.
    """

    def __init__(self, sounds: SoundSource, task: str, question: str = "Describe the sound."):
        self.name, self.left_out = sounds.name, sounds.left_out
        self._sounds, self._task, self._question = sounds, task, question
        usable = [name for name, known in TASKS.items() if any(entry == "audio1" for _, entry in known.turns)]
        if task not in usable:
            raise UserError(f"task must be one of {', '.join(usable)}, got {task!r}")

    def __len__(self) -> int:
        return len(self._sounds)

    def __getitem__(self, index: int) -> RawConversation:
        sound = self._sounds[index]
        task = TASKS[self._task]
        listens = any(entry == "text2" for _, entry in task.turns)
        texts = {"text1": self._question, "text2": sound.caption} if listens else {"text1": sound.caption}
        messages = tuple(
            RawMessage(role, Modality.TEXT, texts[entry])
            if entry in texts
            else sound_message(role, Waveform(sound.wav, sound.sample_rate), task.audio_tag)
            for role, entry in task.turns
        )
        return RawConversation(sound.id, messages, sound.caption, sound.scene, sound.unused)

    def fingerprint(self) -> dict[str, Any]:
        return {"task": self._task, "question": self._question, "sounds": self._sounds.fingerprint()}

    def digest(self, indices: range) -> dict[str, Any]:
        """As `fingerprint`, of a range of records alone where the sounds can tell it apart."""
        sounds = getattr(self._sounds, "digest", lambda _: self._sounds.fingerprint())(indices)
        return self.fingerprint() | {"sounds": sounds}
