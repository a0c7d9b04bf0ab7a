"""A model that answers what a script says, with the engine, codec, encoder and tokenizer that sessions need."""

import pathlib
import types
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ualm_jax.data.raw.soundscript.invent import realise
from ualm_jax.data.raw.soundscript.parse import plan_of_caption
from ualm_jax.data.raw.soundscript.render import render
from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.job import Job
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.tokens.tokenizer import Tokenizer
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

RATE = 16000


class Letters(Tokenizer):
    """A tokenizer of letters."""

    def __init__(self):
        self.size = 256

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


class Sounds:
    """A codec that knows the sounds of captions by number: all codes of a sound are its number."""

    sample_rate, hop, frame_rate, codebook_sizes, context = RATE, 320, 50.0, (1024,) * 8, 0

    def __init__(self):
        self.captions: dict[int, str] = {}

    def codes(self, caption: str) -> np.ndarray:
        if not caption:
            return np.zeros((0, 8), np.int32)
        number = zlib.crc32(caption.encode()) % 1023  # the same in every process
        assert self.captions.setdefault(number, caption) == caption
        return np.full((len(rendered(caption)) // self.hop, 8), number, np.int32)

    def encode(self, wav: np.ndarray) -> np.ndarray:
        """All other sounds have the number 1023."""
        return np.full((len(wav) // self.hop, 8), 1023, np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return rendered(self.captions[int(codes[0, 0])]) if len(codes) else np.zeros(0, np.float32)

    def encode_batch(self, wavs) -> list[np.ndarray]:
        return list(map(self.encode, wavs))

    def decode_batch(self, codes) -> list[np.ndarray]:
        return list(map(self.decode, codes))


class ScriptedJob(Job):
    def __init__(self, request, messages):
        self.asked, self.messages, self.modality, self.done, self.past = (
            request,
            messages,
            request.modality,
            False,
            None,
        )


class Turns:
    """An engine whose jobs are all done after one step."""

    def __init__(self, slots: int):
        self.slots, self.jobs, self.messages = slots, [], ()

    def submit(self, request, past) -> ScriptedJob:
        self.jobs.append(ScriptedJob(request, self.messages))
        return self.jobs[-1]

    def advance(self) -> None:
        for job in self.jobs:
            job.done = True
        self.jobs.clear()

    def cancel(self, job) -> None:
        self.jobs = [other for other in self.jobs if other is not job]

    def forget(self, past) -> None:
        pass


class ScriptedModel(Pipeline):
    """script: for each first message of a user, what is answered, reply by reply: a text, the sound of a caption
    ("sound: Two clicks."; "sound:" is one without frames), a UserError, or a function of the seed that gives one of
    these. Replies that others gave for it count too.

    Answers hang on the conversation and the seed alone. calls: (first message, number of the reply), of all asked for.
    stop_at: after so many there is a KeyboardInterrupt. hears: whether it has an audio encoder.
    language: as of `ualm_jax.load`.
    """

    def __init__(
        self,
        script: Mapping[str, Sequence[Any]],
        slots: int = 2,
        stop_at: int | None = None,
        hears: bool = True,
        language: str | None = None,
    ):
        vocabulary = types.SimpleNamespace(vocabulary=Vocabulary(256, 1024, 8))
        parts = dict(model=types.SimpleNamespace(architecture=vocabulary), codec=Sounds(), tokenizer=Letters())
        parts |= dict(
            encoder=object() if hears else None, engine=Turns(slots), slots=slots, made_by=MadeBy(), audio_defaults={}
        )
        parts |= dict(path=pathlib.Path("scripted"), language=language)
        for name, value in (parts | dict(script=script, calls=[], stop_at=stop_at)).items():
            object.__setattr__(self, name, value)  # of a frozen dataclass

    def sound_message(self, sound):
        return Message(Role.USER, Modality.CLIP, len(sound) // 640), None

    def grid(self, messages):
        self.engine.messages = tuple(messages)
        return super().grid(messages)

    def answer(self, job, prompt, stop=(), **_):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        key, count = self.place(job)
        self.calls.append((key, count))
        said = self.script[key][count]
        said = said(job.asked.params.seed) if callable(said) else said
        if isinstance(said, UserError):
            raise said
        common = dict(prompt=prompt, settings=job.asked.params, end="eos", context="a conversation")
        if job.modality == "text":
            return Text(said, np.array(self.tokenizer.encode(said), np.int32), **common)
        assert said.startswith("sound:"), f"{key}: a sound was asked for as reply {count}, the script says {said!r}"
        codes = self.codec.codes(said.removeprefix("sound:").strip())
        return Clip(self.codec.decode(codes), RATE, codes, **common)

    def place(self, job) -> tuple[str, int]:
        """The first message of the user, and how many replies there are."""
        first = next(message for message in job.messages if message.role == Role.USER)
        return self.tokenizer.decode(first.content.tolist()), sum(m.role == Role.ASSISTANT for m in job.messages)


def rendered(caption: str) -> np.ndarray:
    """A sound that keeps a caption of SoundScript, at 16 kHz."""
    scene = realise(plan_of_caption(caption), np.random.Generator(np.random.Philox(1)))
    return render(scene, RATE).astype(np.float32)
