"""A model that can be used without knowing how it is made: prompts in, sounds and texts out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ualm_jax.errors import UserError
from ualm_jax.fields import Count, check_value
from ualm_jax.generate.best_of import Candidate, candidates, check_ranked, rank
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.inputs import Prompt, Sound
from ualm_jax.generate.job import Job
from ualm_jax.generate.parts import Answer, Parts
from ualm_jax.generate.score import score
from ualm_jax.generate.scorers import Scorer, load_scorer
from ualm_jax.generate.session import Session, message_of
from ualm_jax.generate.session_folder import read_session
from ualm_jax.generate.stream import Stream
from ualm_jax.tokens.types import Message, Modality, Role


class Pipeline(Parts):
    """What can be done with the parts of a model. All of it happens in one engine, made when it is first used."""

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        seconds: int | float | None = None,
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
        Raises UserError for a setting that does not fit, and an empty prompt, before any work; for a prompt that is too
        long when its turn comes.
        """
        texts = _several(prompts)
        settings |= dict(modality=modality, seconds=seconds, negative_prompt=negative_prompt)
        return self._all([dict(text=text) for text in texts], seed, settings, return_exceptions)

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
        settings: as those of `generate`; temperature, top_k, top_p and min_p are those of the text.
        """
        several = isinstance(sounds, list)
        sounds = sounds if several else [sounds]
        questions = [questions] * len(sounds) if isinstance(questions, str) else list(questions)
        if len(questions) != len(sounds):
            raise UserError(f"Give one question, or one for each of {len(sounds)} sounds, got {len(questions)}.")
        each = [dict(text=question, sound=sound) for sound, question in zip(sounds, questions, strict=True)]
        answers = self._all(each, seed, settings | dict(modality="text"), return_exceptions)
        said = [answer.text if isinstance(answer, Text) else answer for answer in answers]
        return said if several else said[0]

    def stream(
        self,
        prompt: str,
        *,
        seconds: int | float | None = None,
        seed: int = 0,
        modality: str = "audio",
        first_chunk_frames: int = 2,
        chunk_frames: int = 25,
        **settings: Any,
    ) -> Stream:
        """One answer while it is made: `for samples in model.stream("rain"): play(samples)`.

        first_chunk_frames, chunk_frames: of the first chunk of sound, and of the largest (`Stream`). All else is as in
        `generate`.
        """
        asked = self.prompt(prompt, seconds=seconds, seed=seed, modality=modality, **settings)
        return self.stream_of(asked, first_chunk_frames=first_chunk_frames, chunk_frames=chunk_frames)

    def stream_of(self, asked: Prompt, *, first_chunk_frames: int = 2, chunk_frames: int = 25) -> Stream:
        """`stream` of a prompt with all that belongs to it."""
        return Stream(
            self,
            self.engine.submit(self.request(asked)),
            lambda job: self._answer(job, asked),
            first_chunk_frames=first_chunk_frames,
            chunk_frames=chunk_frames,
            stop=asked.stop,
        )

    def best_of(
        self, prompts: str | Sequence[str], count: int, scorer: str | Scorer = "likelihood", **settings: Any
    ) -> list[list[Candidate]]:
        """For each prompt `count` candidates, the best first; they are made side by side, and those that begin together
        read the prompt once.

        scorer: a function (prompt, clip) -> float, or the name of one (`scorers.load_scorer`). settings: as those of
        `generate`; candidate j of prompt i is drawn with seed + i * count + j.
        Raises UserError for a prompt that cannot be answered, and for one of whose candidates none has a score.
        """
        prompts = _several(prompts)
        check_value(count, Count, "count")
        scorer = load_scorer(scorer, self) if isinstance(scorer, str) else scorer
        seed = settings.pop("seed", 0)
        asked = [
            each
            for index, text in enumerate(prompts)
            for each in candidates(self.prompt(text, seed=(seed + index * count) % 2**32, **settings), count)
        ]
        made: list[Answer | None] = [None] * len(asked)
        for index, answer in self.run(asked):
            if isinstance(answer, UserError):
                raise answer
            made[index] = answer
        groups = [rank(scorer, made[start : start + count]) for start in range(0, len(made), count)]
        for group in groups:
            check_ranked(group)
        return groups

    def score(
        self, prompts: str | Sequence[str], answers: str | Sound | Answer | list[str | Sound | Answer]
    ) -> list[Float[np.ndarray, "T S"]]:
        """How likely the model finds an answer to each prompt: log-probabilities of its tokens, without guidance.

        answers: a text (a str), what the model has made, or a sound as `Session.say` takes it. Entries are as long as
        prompt and answer together, natural logarithms, 0 at all positions and streams but those of the answer; their
        sum is that of the answer. The function is that of the loss (`generate.score`).
        """
        prompts, answers = _several(prompts), answers if isinstance(answers, list) else [answers]
        if len(prompts) != len(answers):
            raise UserError(f"Give one answer to each of {len(prompts)} prompts, got {len(answers)}.")
        given = [[self.text_message(prompt), self._given(one)] for prompt, one in zip(prompts, answers, strict=True)]
        with jax.set_mesh(self.mesh):
            return score(self.part("model"), given)

    def session(self, *, system: str | None = None, seed: int = 0) -> Session:
        """A new conversation. system: what the model is told before it begins."""
        session = Session(self, seed=seed)
        return session if system is None else session.say(system, "system")

    def open_session(self, folder: str | os.PathLike) -> Session:
        """The conversation that `Session.save` wrote; it goes on with the same tokens.

        Raises UserError if it can not be read, or does not fit this model.
        """
        return Session(self, *read_session(self, folder))

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
                        answer = self._answer(job, prompt)
                    except UserError as error:
                        answer = error
                    yield index, answer
        finally:
            for _, job in waiting.values():
                self.engine.cancel(job)

    def _given(self, answer: str | Sound | Answer) -> Message:
        if isinstance(answer, str):
            return self.text_message(answer, Role.ASSISTANT)
        if isinstance(answer, Clip | Text):
            return message_of(answer)
        return Message(Role.ASSISTANT, Modality.AUDIO, self._codes(answer), "audio")

    def _answer(self, job: Job, asked: Prompt) -> Answer:
        return self.answer(job, asked.text, asked.stop, negative=asked.negative, context=asked.context)

    def _all(
        self, each: Sequence[dict[str, Any]], seed: int, settings: dict[str, Any], return_exceptions: bool
    ) -> list[Answer | UserError]:
        self.prompt("Are the settings right?", seed=seed, **settings)
        answers: list[Answer | UserError | None] = [None] * len(each)
        prompts, places = [], []
        for index, own in enumerate(each):
            try:
                prompts.append(self.prompt(**own, seed=(seed + index) % 2**32, **settings))
                places.append(index)
            except UserError as error:
                answers[index] = error
        if not return_exceptions and len(prompts) < len(each):
            raise next(error for error in answers if error is not None)
        for index, answer in self.run(prompts):
            answers[places[index]] = answer
            if isinstance(answer, UserError) and not return_exceptions:
                raise answer
        return answers


def _several(prompts: str | Iterable[str]) -> list[str]:
    if not isinstance(prompts, Iterable):
        raise UserError(f"Prompts must be a text or several, got {type(prompts).__name__}.")
    return [prompts] if isinstance(prompts, str) else list(prompts)
