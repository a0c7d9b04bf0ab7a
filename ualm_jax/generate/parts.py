"""The parts of a model that answers: what an engine is asked for, and what becomes of what it has made."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.codecs.base import Codec
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.engine import Engine
from ualm_jax.generate.inputs import Prompt, Sound, read_sound, sampling
from ualm_jax.generate.job import Job
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.request import Request
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.step import Work
from ualm_jax.generate.stop_strings import before, strings, until
from ualm_jax.models.audio_encoder import AudioEncoder
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.delay import delay
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.tokenizer import Tokenizer, is_unicode
from ualm_jax.tokens.types import Message, Modality, Role, TokenGrid

Answer = Clip | Text


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Parts:
    """None for those that are missing. The mesh is set wherever something is computed.

    slots: answers that are made at once; of the rest, each begins when a slot is free. sequences: that a step reads, of
    which a guided answer takes two and any other one; None: two for each slot. work: all that answers ask for, where
    that is known, see `limited`. window: positions that an answer and its prompt can take; audio that outgrows them
    goes on with the later half of what it has, and its prompt.
    enhancer: what makes 48 kHz stereo of the clips. made_by: what every answer says of the checkpoint.
    audio_defaults: settings of audio by the names of `SamplingParams`, in the place of its own defaults, as the
    checkpoint recommends them.
    """

    mesh: Mesh
    model: UALM | None = None
    codec: Codec | None = None
    encoder: AudioEncoder | None = None
    tokenizer: Tokenizer | None = None
    enhancer: Enhancer | None = None
    slots: int = 8
    sequences: int | None = None
    work: Work | None = None
    window: int = 2048
    made_by: MadeBy = MadeBy()
    audio_defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine in which all answers are made."""
        model = self.part("model")
        with jax.set_mesh(self.mesh):
            sizes = dict(slots=self.slots, sequences=self.sequences, capacity=self.window)
            return Engine(model, **sizes, encoder=self.encoder, work=self.work)

    def limited(self, work: Work) -> "Parts":
        """The same for answers that ask for no more than `work` (`work.work_of`): steps compute nothing else, which
        compiles in half of the time, and a slot has one sequence where nothing is guided."""
        sequences = self.sequences if work.guided else min(self.slots, self.sequences or self.slots)
        made_by = dataclasses.replace(self.made_by, work=work)
        return dataclasses.replace(self, sequences=sequences, work=work, made_by=made_by)

    def part(self, name: str) -> Any:
        """The model, codec, encoder or tokenizer. Raises UserError where there is none."""
        value = getattr(self, name)
        if value is None:
            source = self.made_by.path or "This"
            raise UserError(f"{source} holds no {name}, which this needs; give a run, or a checkpoint that has one.")
        return value

    def prompt(
        self,
        text: str,
        *,
        modality: str = "audio",
        seed: int = 0,
        seconds: int | float | None = None,
        negative_prompt: str | None = None,
        **settings: Any,
    ) -> Prompt:
        """A prompt with settings by name: fields of `Prompt`, and else see `inputs.sampling`."""
        names = {field.name for field in dataclasses.fields(Prompt)} - {"negative"} & settings.keys()
        own = {name: settings.pop(name) for name in names} | {"negative": negative_prompt}
        own["stop"] = strings(own.get("stop", ()))
        return Prompt(text, self.sampling(modality, seconds, settings | {"seed": seed}), modality, **own)

    def sampling(self, modality: str, seconds: int | float | None, settings: Mapping[str, Any]) -> SamplingParams:
        """See `inputs.sampling`; what `settings` do not say, `audio_defaults` do."""
        settings = settings if modality == "text" else {**self.audio_defaults, **settings}
        if settings.get("reference_behaviour"):
            raise UserError(
                "reference_behaviour is for comparisons, by generate.segment.generate; reference_context alone is the "
                "unconditional context of the public UALM code."
            )
        frame_rate = 1.0 if modality == "text" else self.part("codec").frame_rate
        return sampling(modality, frame_rate, seconds, settings)

    def request(self, prompt: Prompt) -> Request:
        """What the engine is asked for. Raises UserError for a prompt that cannot be answered."""
        messages = [self.text_message(prompt.text)]
        heard = None
        if prompt.sound is not None:
            message, heard = self.sound_message(prompt.sound)
            messages.append(message)
        negative = None if prompt.negative is None else self.grid([self.text_message(prompt.negative)])
        stop = until(self.part("tokenizer"), prompt.stop)
        request = Request(self.grid(messages), prompt.params, prompt.modality, heard, negative, slide=True)
        if prompt.begin is not None:
            request = self._begun(request, prompt.begin)
        return dataclasses.replace(request, scored=prompt.log_probabilities, until=stop)

    def answer(
        self,
        job: Job,
        prompt: str,
        stop: Sequence[str] = (),
        *,
        negative: str | None = None,
        context: str | None = "a conversation",
    ) -> Answer:
        """What a finished job has made; see `Clip`. Raises the UserError that stopped it, if one did."""
        made, params = job.result(), job.asked.params
        common = dict(prompt=prompt, settings=params, end=made.end, made_by=self.made_by)
        common |= dict(log_probabilities=made.logprobs, modality=made.modality, negative=negative, context=context)
        if made.modality == "text":
            return Text(before(self.tokenizer.decode(made.tokens.tolist()), stop), made.tokens, **common)
        codec = self.part("codec")
        return Clip(codec.decode(made.tokens), codec.sample_rate, made.tokens, enhancer=self.enhancer, **common)

    def text_message(self, text: str, role: Role = Role.USER) -> Message:
        if not is_unicode(text):
            raise UserError("The text is not written in UTF-8.")
        return Message(role, Modality.TEXT, np.array(self.part("tokenizer").encode(text), np.int32))

    def sound_message(self, sound: Sound) -> tuple[Message, Any]:
        """A user's message of a sound, and what is heard of it (see `prompts.Heard`)."""
        front_end = self.part("encoder").front_end
        samples = read_sound(sound, SAMPLE_RATE)
        return Message(Role.USER, Modality.CLIP, front_end.clip_length(len(samples))), front_end.features(samples)

    def grid(self, messages: Sequence[Message]) -> TokenGrid:
        """What the model reads before it answers."""
        return build_prompt(messages, self.part("model").architecture.vocabulary)

    def _begun(self, request: Request, sound: Sound) -> Request:
        """The request of a segment that begins with this sound; bounds of its frames count what is new."""
        vocabulary = self.model.architecture.vocabulary
        codes = self._codes(sound)
        rows, frames = delay(codes, vocabulary), len(codes)
        index = np.arange(vocabulary.num_streams - 1)[:, None]
        # Streams lag behind the first one, so the next positions are known in part.
        given = np.where(np.arange(vocabulary.num_streams) > index, rows[frames:], 0)
        bounds = {name: frames + getattr(request.params, name) for name in ("min_frames", "max_frames")}
        params = dataclasses.replace(request.params, **bounds)
        return dataclasses.replace(request, params=params, begun=rows[:frames], given=given)

    def _codes(self, sound: Sound) -> Int[np.ndarray, "T Q"]:
        if isinstance(sound, Clip):
            vocabulary = self.model.architecture.vocabulary
            if not len(sound.codes):
                raise UserError("A clip without a frame can not be continued.")
            if sound.codes.shape[1] != vocabulary.num_codebooks or sound.codes.max() >= vocabulary.codebook_size:
                raise UserError("A clip of another codec can not be continued; save it, and give its file instead.")
            return sound.codes
        codec = self.part("codec")
        return codec.encode(read_sound(sound, codec.sample_rate))
