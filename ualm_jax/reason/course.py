"""The course that thinking takes: a plan, perhaps after questions; a sound; and as often as asked, the sound listened
to, criticised and made again.

What is said is worded as SoundScript's conversations are (data/raw/soundscript/conversations.py), so that a model that
was trained on those tasks answers.
"""

import dataclasses
import itertools
from collections.abc import Callable, Generator, Mapping
from typing import Any

from ualm_jax.data.raw.soundscript.conversations import CRITICISE, LISTEN, MAKE_RIGHT, PLAN_FIRST
from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.scorers import Score, Scorer, score_all
from ualm_jax.generate.session import Session
from ualm_jax.reason.events import Asked, Criticised, Ended, Event, Heard, Made, Planned, Version
from ualm_jax.reason.plans import audible, contradictions, faults, found_nothing, read
from ualm_jax.tokens.rich_caption import RichCaption, compare

REASONS = {
    "made": "no reflection was asked for",
    "as planned": "the critique finds nothing wrong",
    "no better": "the judge likes the new version no better",
    "rounds": "all rounds are done",
    "budget": "the steps that it may take are used up",
    "stopped": "the caller stopped it",
    "problem": "something went wrong",
}
"""Why the course ended."""

Listener = Callable[[Clip], str]
"""Writes a rich caption of a sound, instead of the model. Raises UserError for one that it can not listen to."""

Critic = Callable[[RichCaption, RichCaption], str]
"""Says what of the second, heard, is not as in the first, planned, instead of the model."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """prompt: what is asked for. plan: a rich caption to make it from, instead of the model's own."""

    prompt: str
    plan: str | None = None


@dataclasses.dataclass(frozen=True)
class How:
    """rounds: of listening, critique and another version, at most. plan: whether the sound is planned at all. ask:
    whether the model asks before it plans, and `questions` how often at most. budget: decode steps after which no
    further version is begun.

    judge: scores every version, for the prompt or the plan (judged_by); the best is kept, and a version that is no
    better than the best before, or that it can not score, is the last. Without one, the last version is listened to as
    well, and the one in which the fewest things are heard that differ from the plan is the best. Of equals the first is
    kept.
    seconds, settings: of the sounds, as of `Pipeline.generate`; text_temperature, max_tokens and so on are of texts.
    listener, critic: who hears and who criticises, instead of the model; what they raise ends it as a problem.
    """

    rounds: int = 1
    plan: bool = True
    ask: bool = False
    questions: int = 16
    budget: int | None = None
    judge: Scorer | None = None
    judged_by: str = "prompt"
    seconds: int | float | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    listener: Listener | None = None
    critic: Critic | None = None

    def __post_init__(self):
        if self.rounds < 0 or self.questions < 1 or (self.budget is not None and self.budget < 1):
            raise UserError(
                "rounds must be at least 0, questions and budget at least 1, got "
                f"{self.rounds}, {self.questions} and {self.budget}."
            )
        if not self.plan and (self.rounds or self.ask or self.judged_by == "plan"):
            raise UserError(
                "Without a plan there are no rounds, no questions, and nothing to be judged by but the prompt."
            )
        if self.judged_by not in ("prompt", "plan"):
            raise UserError(f"judged_by must be prompt or plan, got {self.judged_by!r}.")


@dataclasses.dataclass(frozen=True)
class Ask:
    """The model is to go on with this modality; it is answered with what it made."""

    modality: str


Steps = Generator[Ask | Event, Any, None]


class _End(Exception):
    """Ends the course. reason: of REASONS."""

    def __init__(self, reason: str, problem: str | None = None):
        self.reason, self.problem = reason, problem


class Course:
    """Thinking about one wish in a session. `steps` yields what the model is asked for, and is sent its answer; it also
    yields events, and is sent the text to replace the event's, or None."""

    def __init__(self, session: Session, wish: Wish, how: How):
        self._session, self._wish, self._how = session, wish, how
        self._plan: str | None = None
        self._talk: list[tuple[str, str]] = []
        self._versions: list[Version] = []
        self._used = 0

    def steps(self) -> Steps:
        reason, problem = "problem", None
        try:
            plan = yield from self._find_plan()
            yield from self._make(plan)
        except _End as end:
            reason, problem = end.reason, end.problem
        except UserError as error:
            problem = str(error)
        yield self.ended(reason, problem)

    def ended(self, reason: str, problem: str | None = None) -> Ended:
        """The last event, of a course that ends now."""
        versions, talk = tuple(self._versions), tuple(self._talk)
        return Ended(self._wish.prompt, reason, problem, self._plan, talk, versions, self._best(), self._used)

    def _find_plan(self) -> Generator[Ask | Event, Any, RichCaption | None]:
        """The plan; None where the sound is made without one."""
        if not self._wish.prompt.strip():
            raise UserError("the prompt is empty; say what is wanted")
        if not self._how.plan:
            if self._wish.plan is not None:
                raise UserError("There is a plan, but the sound is to be made without one; leave out one of both.")
            self._session.say(self._wish.prompt)
            return None
        if self._how.ask:
            if self._wish.plan is not None:
                raise UserError("A dialogue finds out what to plan; leave out the plan.")
            self._session.say(self._wish.prompt)
            text = yield from self._ask_until_planned()
        else:
            self._session.say(PLAN_FIRST.format(self._wish.prompt))
            if self._wish.plan is None:
                text = yield from self._text()
            else:
                text = self._wish.plan
                self._session.answer_with(text)
        caption, problem = read(text)
        if caption is not None and self._wish.plan is not None and (found := contradictions(caption)):
            problem = f"it contradicts itself: {found[0]}"
        text = yield from self._offer(Planned(text, caption, problem), self._note_plan)
        return read(text)[0]

    def _ask_until_planned(self) -> Generator[Ask | Event, Any, str]:
        for number in itertools.count(1):
            text = yield from self._text()
            if read(text)[0] is not None or "keywords" in text.lower():
                return text
            if not text.strip():
                raise _End("problem", f"question {number} of the model is empty")
            if number > self._how.questions:
                raise _End("problem", f"the model asked {number} questions without making a plan")
            answer = yield Asked(text, number)
            if answer is None:
                raise _End("problem", f"nobody answered question {number} of the model: {text}")
            self._talk.append((text, answer))
            self._session.say(answer)

    def _make(self, plan: RichCaption | None) -> Steps:
        how, wanted = self._how, None if plan is None else audible(plan)
        for number in itertools.count(1):
            clip = yield Ask("audio")
            self._used += len(clip.codes)
            if len(clip.codes) == 0:
                raise _End("problem", f"v{number} holds no sound, so it can not be listened to")
            before = self._best()
            version = Version(f"v{number}", clip, self._judge(clip))
            self._versions.append(version)
            yield Made(version)
            if version.score is not None and version.score.problem is not None:
                raise _End("problem", f"the judge gave {version.name} no score: {version.score.problem}")
            if how.judge and before is not None and not version.score.order > before.score.order:
                raise _End("no better")
            last = number > how.rounds
            if last and (how.judge or not how.rounds):
                raise _End("rounds" if how.rounds else "made")
            heard = yield from self._listen(version.name, clip, wanted)
            if last:
                raise _End("rounds")
            critique = yield from self._criticise(version.name, wanted, heard)
            if found_nothing(critique):
                raise _End("as planned")
            if how.budget is not None and self._used >= how.budget:
                raise _End("budget")
            self._session.say(MAKE_RIGHT)

    def _listen(self, name: str, clip: Clip, wanted: RichCaption) -> Generator[Ask | Event, Any, RichCaption]:
        self._session.say(LISTEN).listen()
        if self._how.listener is None:
            text = yield from self._text()
        else:
            text = _asked("listener", self._how.listener, clip)
            self._session.answer_with(text)
        caption, problem = read(text)

        def note(text: str) -> None:
            caption, _ = read(text)
            if caption is None:
                self._note(heard=text)
            else:
                self._note(heard=caption.write(), faults=faults(compare(wanted, audible(caption))))

        text = yield from self._offer(Heard(name, text, caption, problem), note)
        return read(text)[0]

    def _criticise(self, name: str, wanted: RichCaption, heard: RichCaption) -> Generator[Ask | Event, Any, str]:
        self._session.say(CRITICISE.format(wanted.write()))
        if self._how.critic is None:
            text = yield from self._text()
        else:
            text = _asked("critic", self._how.critic, wanted, audible(heard))
            self._session.answer_with(text)
        problem = None if text.strip() else "it is empty"
        return (yield from self._offer(Criticised(name, text, problem), lambda text: self._note(critique=text)))

    def _text(self) -> Generator[Ask, Text, str]:
        answer = yield Ask("text")
        self._used += len(answer.ids)
        return answer.text

    def _offer(
        self, event: Planned | Heard | Criticised, note: Callable[[str], None]
    ) -> Generator[Event, str | None, str]:
        """The text of an event, or what the caller puts in its place; `note` keeps it for the end, whatever comes."""
        note(event.text)
        other = yield event
        if other is not None:
            self._session.said.pop()
            self._session.answer_with(other)
            note(other)
            return other
        if event.problem is not None:
            what = {Planned: "plan", Heard: "rich caption of what is heard", Criticised: "critique"}[type(event)]
            raise _End("problem", f"the {what} can not be used: {event.problem}")
        return event.text

    def _judge(self, clip: Clip) -> Score | None:
        if self._how.judge is None:
            return None
        asked = self._wish.prompt if self._how.judged_by == "prompt" else self._plan
        return score_all(self._how.judge, [asked], [clip])[0]

    def _note_plan(self, text: str) -> None:
        self._plan = text

    def _note(self, **found: Any) -> None:
        self._versions[-1] = dataclasses.replace(self._versions[-1], **found)

    def _best(self) -> Version | None:
        """The first of the best: by the judge, or with the fewest faults; what was not listened to comes last."""
        if self._how.judge is not None:
            return max(self._versions, key=lambda each: each.score.order, default=None)
        return min(self._versions, key=lambda each: float("inf") if each.faults is None else each.faults, default=None)


def _asked(who: str, function: Callable[..., str], *about: Any) -> str:
    """What somebody else says of a sound. Raises UserError for a fault of theirs, so that others go on."""
    try:
        text = function(*about)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the {who} failed ({type(error).__name__}: {error})") from error
    if not isinstance(text, str):
        raise UserError(f"the {who} gave {text!r}, which is no text")
    return text
