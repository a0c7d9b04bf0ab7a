"""A conversation with a model: what was said on both sides, and what the engine remembers of it."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.errors import UserError
from ualm_jax.fields import Seed, check_value
from ualm_jax.generate.clip import Text
from ualm_jax.generate.inputs import Sound, audible, read_sound
from ualm_jax.generate.job import Job
from ualm_jax.generate.parts import Answer, Parts
from ualm_jax.generate.past import Past
from ualm_jax.generate.request import Request
from ualm_jax.generate.said import Said, text_of
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.session_folder import save
from ualm_jax.generate.stop_strings import strings, until
from ualm_jax.generate.stream import Stream
from ualm_jax.tokens.types import Message, Modality, Role


class Session:
    """What a model and a user say to each other, in texts and sounds.

        session = model.session()
        session.say("What do you hear?").say(pathlib.Path("clip.wav"))
        for segment in session.reply():
            print(segment)

    The engine remembers what it has read and made, so that a turn costs only what is new. It may forget, where others
    need the room; then it reads all of it again, and the replies are the same. Reply i is drawn with seed + i.
    """

    def __init__(self, parts: Parts, said: Sequence[Said] = (), seed: int = 0):
        self.parts, self.seed = parts, check_value(seed, Seed, "seed")
        self.said = list(said)
        self._past: Past | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return tuple(said.message for said in self.said)

    def say(self, what: str | Sound, role: str = "user") -> "Session":
        """Adds a text (a str) or a sound (a pathlib.Path, a clip, (samples, rate), or samples at 16 kHz).

        role: "user", or "system" for a text. Returns the session. Raises UserError for an empty text, a sound that
        cannot be read, or one that the audio encoder does not take.
        """
        if role not in ("user", "system") or (role == "system" and not isinstance(what, str)):
            raise UserError(f"role must be user or, for a text, system, got {role!r}.")
        if isinstance(what, str):
            if not what.strip():
                raise UserError("A message is empty; say something.")
            self.said.append(Said(self.parts.text_message(what, Role(role))))
        else:
            samples = read_sound(what, SAMPLE_RATE)
            self.said.append(Said(*self._sound(samples)))
        return self

    def reply(self, modality: str = "auto", *, seconds: int | float | None = None, **settings: Any) -> Iterator[Answer]:
        """Segments of the model's reply, until it ends with eos or is cut off; after each eot another one follows.

        modality: "audio", "speech" or "text", for all of them, or "auto": the model chooses for each.
        seconds, settings: as those of `Pipeline.generate`. A segment is part of the conversation once it is yielded.
        Raises UserError where there is nothing to reply to, or no room for the conversation and a reply.
        """
        for _, answer in replies([self], modality, seconds=seconds, **settings):
            if isinstance(answer, UserError):
                raise answer
            yield answer

    def stream(self, modality: str = "auto", *, seconds: int | float | None = None, **settings: Any) -> Stream:
        """The next segment of the reply while it is made, part of the conversation at its end.

        settings: as those of `reply`, and first_chunk_frames and chunk_frames of `Stream`.
        """
        chunks = {name: settings.pop(name) for name in ("first_chunk_frames", "chunk_frames") if name in settings}
        stop = strings(settings.pop("stop", ()))
        job = self.begin(modality, self.parts.sampling(modality, seconds, settings), stop)
        return Stream(self.parts, job, lambda job: self.finish(job, stop), stop=stop, **chunks)

    def listen(self) -> "Session":
        """The model hears the last sound that it has made: decoded, and encoded by the audio encoder, as a user's
        message behind it, turned down where it would clip. The codes stay in the conversation, too.

        Raises UserError where it has made none.
        """
        made = [said for said in self.said if said.message.modality == Modality.AUDIO]
        if not made:
            raise UserError("The model has made no sound in this conversation that it could listen to.")
        codec = self.parts.part("codec")
        return self.say((audible(codec.decode(made[-1].message.content)), codec.sample_rate))

    def answer_with(self, text: str) -> "Session":
        """The model replies with these words, which somebody has written for it."""
        self.said.append(Said(self.parts.text_message(text, Role.ASSISTANT)))
        return self

    def undo(self) -> "Session":
        """Takes back what the model has said last, up to the message before, so that there can be another reply."""
        while self.said and self.said[-1].message.role == Role.ASSISTANT:
            self.said.pop()
        return self

    def fork(self, seed: int | None = None) -> "Session":
        """A second session with the same past: each goes on by itself. seed: of the fork, if it shall have its own."""
        other = Session(self.parts, self.said, self.seed if seed is None else seed)
        if self._past is not None:
            other._past = self.parts.engine.copy(self._past)
        return other

    def close(self) -> None:
        """Gives the engine its room back. The session can still go on; all is read again then."""
        if self._past is not None:
            self.parts.engine.forget(self._past)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes a folder of session.json and sound files, whole or not at all; a session that is there is replaced.

        Raises UserError where that cannot be.
        """
        save(self.parts, self.said, self.seed, folder)

    def begin(self, modality: str, params: SamplingParams, stop: Sequence[str] = ()) -> Job:
        """The engine begins the next segment. Raises UserError as `reply`."""
        if not self.said:
            raise UserError("Nothing has been said in this conversation that the model could reply to.")
        count = sum(said.message.role == Role.ASSISTANT for said in self.said)
        params = dataclasses.replace(params, seed=(self.seed + count) % 2**32)
        request = Request(
            self.parts.grid(self.messages),
            params,
            modality,
            _joined([said.heard for said in self.said if said.heard is not None]),
            slide=True,
            until=until(self.parts.part("tokenizer"), stop),
            keep=True,
        )
        return self.parts.engine.submit(request, self._past)

    def finish(self, job: Job, stop: Sequence[str] = ()) -> Answer:
        """The segment that a job has made, which is part of the conversation now. Raises UserError if it failed."""
        answer = self.parts.answer(job, "", stop)
        self._past, message = job.past, message_of(answer)
        if isinstance(answer, Text) and answer.text != text_of(self.parts, message):
            # It was cut at a string: what nobody was shown is no part of what was said.
            message = self.parts.text_message(answer.text, Role.ASSISTANT)
        self.said.append(Said(message))
        return answer

    def _sound(self, samples: Float32[np.ndarray, " N"]) -> tuple[Message, Any, Any]:
        message, heard = self.parts.sound_message(samples)
        return message, samples, heard


def replies(
    sessions: Sequence[Session], modality: str = "auto", *, seconds: int | float | None = None, **settings: Any
) -> Iterator[tuple[Session, Answer | UserError]]:
    """`Session.reply` of several sessions of one model side by side: (session, segment), as they are done.

    A session that cannot go on gives its UserError, and the others go on. Raises UserError for one that is named twice,
    and for sessions of several models.
    """
    if not sessions:
        return
    if len(set(sessions)) < len(sessions) or len({id(session.parts) for session in sessions}) > 1:
        raise UserError("Sessions that reply side by side must be different ones, and of one model.")
    parts, jobs, failed = sessions[0].parts, {}, []
    stop = strings(settings.pop("stop", ()))
    params = parts.sampling(modality, seconds, settings)

    def begin(session: Session) -> None:
        try:
            jobs[session] = session.begin(modality, params, stop)
        except UserError as error:
            failed.append((session, error))

    try:
        for session in sessions:
            begin(session)
        while jobs or failed:
            yield from failed
            failed.clear()
            parts.engine.advance()
            for session in [session for session, job in jobs.items() if job.done]:
                job = jobs.pop(session)
                try:
                    answer = session.finish(job, stop)
                except UserError as error:
                    answer = error
                else:
                    if answer.end == "eot":
                        begin(session)
                yield session, answer
    finally:
        for job in jobs.values():
            parts.engine.cancel(job)


def message_of(answer: Answer) -> Message:
    """What the model has made, as a message of a conversation."""
    if isinstance(answer, Text):
        return Message(Role.ASSISTANT, Modality.TEXT, answer.ids)
    return Message(Role.ASSISTANT, Modality.AUDIO, answer.codes, answer.modality)


def _joined(heard: list[Any]) -> Any:
    return [window for windows in heard for window in windows] if heard else None
