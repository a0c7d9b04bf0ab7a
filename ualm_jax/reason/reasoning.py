"""Thinking about one wish, or about many side by side: events, and a caller who may answer, edit and stop."""

from collections.abc import Iterable, Iterator
from typing import Any

from ualm_jax.errors import UserError
from ualm_jax.generate.job import Job
from ualm_jax.generate.session import Session
from ualm_jax.reason.course import Ask, Course, How, Wish
from ualm_jax.reason.events import Asked, Criticised, Ended, Event, Heard, Planned
from ualm_jax.reason.plans import contradictions, read


class Reasoning:
    """Iterates over the events of a wish; the last is Ended.

        reasoning = Reasoning(model.session(seed=0), Wish("brass, then percussion"), How(rounds=2))
        for event in reasoning:
            print(event)
            if isinstance(event, Planned):
                reasoning.reply(event.text.replace("brass", "strings"))

    The session holds the conversation, edits included.
    """

    def __init__(self, session: Session, wish: Wish, how: How):
        self.session, self.wish, self.how = session, wish, how
        self.ended: Ended | None = None
        self._course = Course(session, wish, how)
        self._steps = self._course.steps()
        self._last: Event | None = None
        self._sent: Any = None
        self._stopped = False

    def __iter__(self) -> Iterator[Event]:
        return (event for _, event in run([self]))

    def reply(self, text: str) -> None:
        """Answers the question that the last event asks; otherwise replaces its plan, rich caption or critique by
        `text`. May be called again until the next event is asked for.

        Raises UserError where the last event takes none, for an empty text, and for a plan, or a rich caption of what
        is heard, that can not be read or contradicts itself.
        """
        if not isinstance(self._last, Asked | Planned | Heard | Criticised):
            raise UserError(
                "There is nothing to reply to: neither a question nor a plan, a rich caption or a critique."
            )
        if not text.strip():
            raise UserError("A reply is empty; say something.")
        if isinstance(self._last, Planned | Heard):
            caption, problem = read(text)
            found = [problem] if caption is None else contradictions(caption)
            if found:
                raise UserError(f"This is no rich caption to go on with: {found[0]}.")
        self._sent = text

    def stop(self) -> None:
        """Ends it: the next event is Ended, with what there is."""
        self._stopped = True

    def advance(self) -> Ask | Event | None:
        """The next event, None at the end. After an Ask, call `give`."""
        if self.ended is not None:
            return None
        if self._stopped:
            self._steps.close()
            step = self._course.ended("stopped")
        elif isinstance(self._sent, UserError):
            step = self._steps.throw(self._sent)
        else:
            step = self._steps.send(self._sent)
        self._sent = None
        self._last = None if isinstance(step, Ask) else step
        if isinstance(step, Ended):
            self.ended = step
            self._steps.close()
        return step

    def give(self, answer: Any) -> None:
        """Answers an Ask, or hands in the UserError that stood in the way."""
        self._sent = answer


def run(reasonings: Iterable[Reasoning]) -> Iterator[tuple[Reasoning, Event]]:
    """Events of several reasonings of one model, as they happen. Each is as it would be alone; they are begun no faster
    than the engine has room, and their sessions are closed as they end."""
    source, ready, jobs = iter(reasonings), [], {}
    parts, more = None, True
    try:
        while ready or jobs or more:
            while more and (parts is None or len(ready) + len(jobs) < 2 * parts.engine.slots):
                reasoning = next(source, None)
                more = reasoning is not None
                if more:
                    parts = reasoning.session.parts
                    ready.append(reasoning)
            while ready:
                reasoning = ready.pop(0)
                step = reasoning.advance()
                if isinstance(step, Ask):
                    _begin(reasoning, step, jobs, ready)
                elif step is None:
                    reasoning.session.close()
                else:
                    yield reasoning, step
                    ready.append(reasoning)
            if jobs:
                parts.engine.advance()
            for reasoning in [reasoning for reasoning, job in jobs.items() if job.done]:
                try:
                    reasoning.give(reasoning.session.finish(jobs.pop(reasoning)))
                except UserError as error:
                    reasoning.give(error)
                ready.append(reasoning)
    finally:
        for job in jobs.values():
            parts.engine.cancel(job)


def _begin(reasoning: Reasoning, asked: Ask, jobs: dict[Reasoning, Job], ready: list[Reasoning]) -> None:
    session, how = reasoning.session, reasoning.how
    try:
        params = session.parts.sampling("audio", how.seconds, how.settings)
        jobs[reasoning] = session.begin(asked.modality, params)
    except UserError as error:
        reasoning.give(error)
        ready.append(reasoning)
