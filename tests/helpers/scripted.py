"""A model that answers what a script says, with the engine, codec and encoder that sessions need."""

import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ualm_jax.data.raw.soundscript.invent import realise
from ualm_jax.data.raw.soundscript.parse import plan_of_caption
from ualm_jax.data.raw.soundscript.render import render
from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.inputs import sampling
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.session import Session
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

RATE = 16000


class Letters:
    """A tokenizer of Unicode letters."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


class ScriptedModel:
    """script: for each first message of a user, what is answered, reply by reply: a text, the sound of a caption
    ("sound: Two clicks."; "sound:" is one without frames), a UserError, or a function of the seed that gives one of
    these. Replies that others gave for it count too.

    Answers hang on the conversation and the seed alone. calls: (first message, number of the reply), of all asked for.
    """

    def __init__(self, script: Mapping[str, Sequence[Any]], slots: int = 2):
        self.script, self.calls, self.sounds = script, [], {}
        self.codec, self.made_by, self.engine, self.tokenizer = self, MadeBy(), self, Letters()
        self.sample_rate, self.slots, self.jobs = RATE, slots, []
        self.frame_rate, self.hop, self.context, self.codebook_sizes = 50.0, 320, 0, (1024,) * 8
        self.model = types.SimpleNamespace(architecture=types.SimpleNamespace(vocabulary=Vocabulary(256, 1024, 8)))

    def session(self, seed: int = 0) -> Session:
        return Session(self, seed=seed)

    # As parts
    def part(self, name: str):
        return getattr(self, name)

    def sampling(self, modality, seconds, settings):
        return sampling(modality, 50.0, seconds, settings)

    def text_message(self, text: str, role: Role = Role.USER) -> Message:
        return Message(role, Modality.TEXT, np.array(self.tokenizer.encode(text), np.int32))

    def sound_message(self, samples):
        return Message(Role.USER, Modality.CLIP, len(samples) // 640), None

    def grid(self, messages):
        return messages

    def answer(self, job, prompt, stop=()):
        first = next(message for message in job.messages if message.role == Role.USER)
        key = self.tokenizer.decode(first.content.tolist())
        count = sum(message.role == Role.ASSISTANT for message in job.messages)
        self.calls.append((key, count))
        said = self.script[key][count]
        said = said(job.params.seed) if callable(said) else said
        if isinstance(said, UserError):
            raise said
        common = dict(prompt=prompt, settings=job.params, end="eos", made_by=self.made_by, context="a conversation")
        if job.modality == "text":
            return Text(said, np.array(self.tokenizer.encode(said), np.int32), **common)
        assert said.startswith("sound:"), f"{key}: a sound was asked for as reply {count}, the script says {said!r}"
        codes = self.codes(said.removeprefix("sound:").strip())
        return Clip(self.decode(codes), RATE, codes, **common)

    # As codec
    def codes(self, caption: str) -> np.ndarray:
        """All frames of a sound hold its number."""
        if not caption:
            return np.zeros((0, 8), np.int32)
        number = next((n for n, other in self.sounds.items() if other == caption), len(self.sounds))
        self.sounds[number] = caption
        return np.full((len(rendered(caption)) // 320, 8), number, np.int32)

    def encode(self, wav: np.ndarray) -> np.ndarray:
        """All other sounds have the number 1023."""
        return np.full((len(wav) // 320, 8), 1023, np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return rendered(self.sounds[int(codes[0, 0])]) if len(codes) else np.zeros(0, np.float32)

    # As engine
    def submit(self, request, past):
        job = types.SimpleNamespace(
            done=False, past=None, messages=request.prompt, params=request.params, modality=request.modality
        )
        self.jobs.append(job)
        return job

    def advance(self):
        for job in self.jobs:
            job.done = True
        self.jobs.clear()

    def cancel(self, job):
        self.jobs = [other for other in self.jobs if other is not job]

    def forget(self, past):
        pass


def rendered(caption: str) -> np.ndarray:
    """A sound that keeps a caption of SoundScript, at 16 kHz."""
    scene = realise(plan_of_caption(caption), np.random.Generator(np.random.Philox(1)))
    return render(scene, RATE).astype(np.float32)
