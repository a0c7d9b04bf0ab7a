"""A model that can be used without knowing how it is made: prompts in, sounds and texts out."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Text
from ualm_jax.generate.parts import Answer, Parts
from ualm_jax.generate.prompt import Prompt, Sound
from ualm_jax.generate.session import Session
from ualm_jax.generate.session_folder import open_session


class Pipeline(Parts):
    """What can be done with the parts of a model. All of it happens in one engine, made when it is first used."""

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        seconds: float | None = None,
        seed: int = 0,
        modality: str = "audio",
        negative_prompt: str | None = None,
        return_exceptions: bool = False,
        **settings: Any,
    ) -> list[Answer | UserError]:
        """One answer to each prompt, made side by side. Answer i is drawn with seed + i, whatever stands beside it.

        seconds: exactly so much audio, up to an hour; by default the model ends it, within 20 s.
        modality: "audio", "speech", "text", or "auto": the model chooses for each prompt.
        negative_prompt: what guidance leads away from, in place of the empty prompt.
        return_exceptions: a prompt that cannot be answered gives its UserError instead of an answer.
        settings: of `SamplingParams`: cfg_scale, temperature, top_k, top_p, min_p, max_tokens and so on; begin: a sound
            that every answer begins with and goes on from, `seconds` more; stop: strings that end a text;
            log_probabilities: True to have them.
        Raises UserError for a setting or, unless exceptions are returned, a prompt that does not fit, before any work.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        how = {name: settings.pop(name) for name in ("begin", "log_probabilities") if name in settings}
        how |= {"modality": modality, "negative": negative_prompt, "stop": _strings(settings.pop("stop", ()))}
        params = self.sampling(modality, seed, seconds, settings)
        makers = [functools.partial(Prompt, text, _seeded(params, index), **how) for index, text in enumerate(prompts)]
        return self._all(makers, return_exceptions)

    def ask(
        self,
        sounds: Sound | list[Sound],
        questions: str | Sequence[str],
        *,
        seed: int = 0,
        return_exceptions: bool = False,
        **settings: Any,
    ) -> str | list[str | UserError]:
        """What the model says to a question about a sound; for a list of sounds, a list of what it says to each.

        sounds: files, clips, (samples, rate) or samples at 16 kHz. questions: one for all sounds, or one for each.
        settings: as those of `generate`.
        """
        several = isinstance(sounds, list)
        sounds = sounds if several else [sounds]
        questions = [questions] * len(sounds) if isinstance(questions, str) else list(questions)
        if len(questions) != len(sounds):
            raise UserError(f"Give one question, or one for each of {len(sounds)} sounds, got {len(questions)}.")
        stop = _strings(settings.pop("stop", ()))
        params = self.sampling("text", seed, None, settings)
        makers = [
            functools.partial(Prompt, question, _seeded(params, index), "text", sound, stop=stop)
            for index, (sound, question) in enumerate(zip(sounds, questions, strict=True))
        ]
        answers = self._all(makers, return_exceptions)
        said = [answer.text if isinstance(answer, Text) else answer for answer in answers]
        return said if several else said[0]

    def session(self, *, system: str | None = None, seed: int = 0) -> Session:
        """A new conversation. system: what the model is told before it begins."""
        session = Session(self, seed=seed)
        return session if system is None else session.say(system, "system")

    def open_session(self, folder: str | os.PathLike) -> Session:
        """The conversation that `Session.save` wrote; it goes on with the same tokens. Raises UserError if it can not be
        read, or does not fit this model."""
        return open_session(self, folder)

    def run(self, prompts: Iterable[Prompt]) -> Iterator[tuple[int, Answer | UserError]]:
        """(index, answer) of each prompt, as they are done. Prompts are read no faster than slots become free.

        A prompt that cannot be answered gives its UserError, and the others go on.
        """
        source, waiting = enumerate(prompts), {}
        try:
            while True:
                while len(waiting) < 2 * self.engine.slots and (item := next(source, None)) is not None:
                    index, prompt = item
                    try:
                        waiting[index] = prompt, self.engine.submit(self.request(prompt))
                    except UserError as error:
                        yield index, error
                if not waiting:
                    return
                self.engine.advance()
                for index in [index for index, (_, job) in waiting.items() if job.done]:
                    prompt, job = waiting.pop(index)
                    try:
                        answer = self.answer(job, prompt.text, prompt.stop)
                    except UserError as error:
                        answer = error
                    yield index, answer
        finally:
            for _, job in waiting.values():
                self.engine.cancel(job)

    def _all(self, makers: Sequence[functools.partial], return_exceptions: bool) -> list[Answer | UserError]:
        answers: list[Answer | UserError | None] = [None] * len(makers)
        prompts, places = [], []
        for index, make in enumerate(makers):
            try:
                prompts.append(make())
                places.append(index)
            except UserError as error:
                if not return_exceptions:
                    raise
                answers[index] = error
        for index, answer in self.run(prompts):
            if isinstance(answer, UserError) and not return_exceptions:
                raise answer
            answers[places[index]] = answer
        return answers


def _seeded(params, index: int):
    return dataclasses.replace(params, seed=(params.seed + index) % 2**32)


def _strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop)
