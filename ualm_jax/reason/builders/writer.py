"""What writes the texts that no sound comes with: prompts, dialogues and critiques. Here from templates."""

from typing import Protocol, runtime_checkable

import numpy as np

from ualm_jax.data.raw.soundscript.dialogue import asked_for, dialogue
from ualm_jax.data.raw.soundscript.phrase import phrase
from ualm_jax.data.raw.soundscript.rich import plan_of_rich
from ualm_jax.errors import UserError
from ualm_jax.tokens.rich_caption import NUMBERS, BadRichCaption, RichCaption, compare, parse

MOST_WORDS = 60  # of a prompt, a turn or a critique


class BadWriting(UserError):
    """What was written can not be used; the message says why."""


@runtime_checkable
class Writer(Protocol):
    """name: of what it writes with; becomes part of every record. The same caption and seed give the same text.

    Raises UserError where nothing usable is written.
    """

    name: str

    def prompt(self, caption: RichCaption, seed: int) -> str:
        """What somebody says who wants such a sound, but does not describe it as fully."""
        ...

    def dialogue(self, caption: RichCaption, seed: int) -> list[tuple[str, str]]:
        """(role, text) turns from a wish that says too little to the user's last answer, after which all is known."""
        ...

    def critique(self, plan: RichCaption, heard: RichCaption) -> str:
        """What of `heard` is not as in `plan`, as a person would say it."""
        ...


class Templates:
    """Writes without a model. A rich caption of SoundScript is worded as SoundScript words it; of any other the prompt
    is its events or their layout, and the dialogue asks for the order and what there is to know of each event."""

    name = "templates"

    def prompt(self, caption: RichCaption, seed: int) -> str:
        rng, plan = np.random.default_rng(seed), plan_of_rich(caption)
        if plan is not None and (sentence := phrase(plan, rng)) is not None:
            return sentence
        return _sentence(caption.layout if caption.layout and rng.random() < 0.5 else _list(caption.keywords))

    def dialogue(self, caption: RichCaption, seed: int) -> list[tuple[str, str]]:
        rng, plan = np.random.default_rng(seed), plan_of_rich(caption)
        if plan is not None and asked_for(plan) == plan:
            return dialogue(plan, rng)
        events = [caption.keywords[place] for place in rng.permutation(len(caption.keywords))]
        turns = [("user", ("Make {}.", "I want {}.", "Play {}.")[rng.integers(3)].format(_list(events)))]
        if len(events) > 1:
            turns += [("assistant", "What is the order?"), ("user", _sentence(caption.layout))]
        for event, attributes in caption.description:
            count = [word for word in attributes if word in NUMBERS]
            rest = [word for word in attributes if word not in NUMBERS]
            if count:
                turns += [("assistant", f"How many times does the {event} sound?"), ("user", _sentence(count[0]))]
            if rest:
                turns += [("assistant", f"How is the {event}?"), ("user", _sentence(", ".join(rest)))]
        if len(turns) == 1:
            raise BadWriting("there is nothing to ask about an event without attributes")
        return turns

    def critique(self, plan: RichCaption, heard: RichCaption) -> str:
        return compare(plan, heard).sentence()


def checked_text(text: str, what: str) -> str:
    """One paragraph of words. Raises BadWriting for what is none, too long, or a rich caption."""
    try:
        parse(text)
    except BadRichCaption:
        text = " ".join(text.split()).strip('"')
    else:
        raise BadWriting(f"the {what} is a rich caption itself")
    if not any(letter.isalpha() for letter in text):
        raise BadWriting(f"the {what} holds no words: {text[:60]!r}")
    if len(text.split()) > MOST_WORDS:
        raise BadWriting(f"the {what} has {len(text.split())} words, at most {MOST_WORDS} are taken")
    return text


def checked_dialogue(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Turns of user and assistant that begin and end with the user, with at least one question."""
    roles = [role for role, _ in turns]
    if len(turns) < 3 or roles != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise BadWriting(f"a dialogue goes from user to assistant and ends with the user, this one is {roles}")
    return [(role, checked_text(text, f"{role}'s turn")) for role, text in turns]


def _list(events) -> str:
    return events[0] if len(events) == 1 else f"{', '.join(events[:-1])} and {events[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
