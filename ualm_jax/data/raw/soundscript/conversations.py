"""Conversations about scenes of language 2: understanding, text alone, plans, dialogues, critiques, reflections."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ualm_jax.data.raw.conversation import RawConversation, Waveform, sound_message, text_message
from ualm_jax.data.raw.soundscript.abstract import draw_prompt
from ualm_jax.data.raw.soundscript.dialogue import asked_for, dialogue
from ualm_jax.data.raw.soundscript.flaws import flawed
from ualm_jax.data.raw.soundscript.invent import realise, seconds_of
from ualm_jax.data.raw.soundscript.phrase import plain
from ualm_jax.data.raw.soundscript.plan import Plan
from ualm_jax.data.raw.soundscript.questions import ask, rework
from ualm_jax.data.raw.soundscript.render import render
from ualm_jax.data.raw.soundscript.rich import by_ear, rich_caption
from ualm_jax.data.raw.soundscript.scene import Scene
from ualm_jax.data.raw.soundscript.source2 import Scripted, SoundScript2
from ualm_jax.errors import UserError
from ualm_jax.tokens.rich_caption import compare
from ualm_jax.tokens.types import Role

DESCRIBE = "Describe the sound."
LISTEN = "Write a rich caption of the sound."
PLAN_FIRST = "Plan first: {}"
CRITICISE = "{}\nWhat is wrong with the sound?"
MAKE_RIGHT = "Make it right."


@dataclasses.dataclass(frozen=True)
class Item:
    """What is said about a sound. user: the question or wish; answer: what the assistant says.

    before: turns that come first. plan: of the sound that is heard or made. kind: of question, for tables.
    first: of a reflection, what its first sound is; with a plan that is not kept on purpose, that sound is not learnt.
    """

    kind: str
    user: str
    answer: str
    plan: Plan
    before: tuple[tuple[str, str], ...] = ()
    first: Plan | None = None


def describe(script: Scripted, rng: np.random.Generator) -> Item | None:
    """Listen, and say plainly what is heard."""
    heard = by_ear(script.plan)
    return heard and Item("describe", DESCRIBE, plain(heard), script.plan)


def listen(script: Scripted, rng: np.random.Generator) -> Item | None:
    """Listen, and write a rich caption of what is heard."""
    heard = by_ear(script.plan)
    return heard and Item("listen", LISTEN, rich_caption(heard).write(), script.plan)


def question(script: Scripted, rng: np.random.Generator) -> Item | None:
    """Listen, and answer a question."""
    asked = ask(script.plan, rng)
    return Item(asked.kind, asked.question, asked.answer, script.plan)


def text(script: Scripted, rng: np.random.Generator) -> Item | None:
    """No sound: a question about a caption, or a caption to rewrite."""
    if rng.random() < 0.5:
        asked = ask(script.plan, rng)
        return Item(f"text: {asked.kind}", f"{asked.question} {script.caption}", asked.answer, script.plan)
    asked = rework(script.plan, script.caption, rng)
    return asked and Item(asked.kind, asked.question, asked.answer, script.plan)


def enrich(script: Scripted, rng: np.random.Generator) -> Item | None:
    """A caption becomes a rich caption, and that a sound."""
    wish = PLAN_FIRST.format(script.caption)
    return Item("enrich", wish, rich_caption(script.plan).write(), script.plan)


def converse(script: Scripted, rng: np.random.Generator) -> Item | None:
    """Questions and answers, then a rich caption, then the sound."""
    plan = asked_for(script.plan)
    if plan is None:
        return None
    *before, (_, last) = dialogue(plan, rng)
    return Item("dialogue", last, rich_caption(plan).write(), plan, tuple(before))


def criticise(script: Scripted, rng: np.random.Generator) -> Item | None:
    """A rich caption and a sound that keeps it or not: what is wrong with the sound?"""
    wanted = by_ear(script.plan)
    if wanted is None:
        return None
    name, found = ("none", wanted) if rng.random() < 0.3 else flawed(wanted, rng)
    difference = compare(rich_caption(wanted), rich_caption(found))
    if not difference and name != "none":  # gaps are no part of what a critique speaks of
        return None
    return Item(name, CRITICISE.format(rich_caption(wanted).write()), difference.sentence(), found)


def imagine(script: Scripted, rng: np.random.Generator) -> Item | None:
    """An open prompt; a rich caption of something that answers it, then the sound."""
    prompt, said, plan = draw_prompt(rng, held_out=script.split != "train")
    return Item(prompt.name, PLAN_FIRST.format(f"{said}."), rich_caption(plan).write(), plan)


def reflect(script: Scripted, rng: np.random.Generator) -> Item | None:
    """A rich caption, a sound that keeps it or not, what is heard of it, a critique, and a sound that keeps it."""
    item = criticise(script, rng)
    if item is None:
        return None
    wish = PLAN_FIRST.format(script.caption)
    return Item(item.kind, wish, rich_caption(script.plan).write(), script.plan, first=item.plan)


# What is said, and whether the sound is heard, made, absent, or made, heard and perhaps made again.
TASKS: dict[str, tuple[Callable[[Scripted, np.random.Generator], Item | None], str]] = {
    "describe": (describe, "heard"),
    "listen": (listen, "heard"),
    "question": (question, "heard"),
    "text": (text, "absent"),
    "enrich": (enrich, "made"),
    "dialogue": (converse, "made"),
    "critique": (criticise, "heard"),
    "imagine": (imagine, "made"),
    "reflect": (reflect, "remade"),
}


class ScriptConversations:
    """Conversations of one of TASKS about the sounds of a SoundScript2. Implements ConversationSource.

    Conversation i depends on the task, the settings of `sounds` and i. Raises UserError for an unknown task.
    """

    def __init__(self, sounds: SoundScript2, task: str):
        if task not in TASKS:
            raise UserError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
        self.name, self.left_out = sounds.name, sounds.left_out
        self._sounds, self._task = sounds, task

    def __len__(self) -> int:
        return len(self._sounds)

    def item(self, index: int) -> tuple[Item, Scene]:
        """What is said in conversation `index`, and the scene of its sound."""
        if not 0 <= index < len(self):
            raise IndexError(f"conversation {index} of {len(self)}")
        make, _ = TASKS[self._task]
        number = list(TASKS).index(self._task)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([3, number, self._sounds.seed, index])))
        while True:
            script = self._sounds.draw(rng)
            item = make(script, rng)
            if item is not None and self._short_enough(item):
                return item, script.scene if item.plan == script.plan else realise(item.plan, rng)

    def _short_enough(self, item: Item) -> bool:
        plans = (item.plan,) if item.first is None else (item.plan, item.first)
        return all(seconds_of(plan) <= self._sounds.max_seconds for plan in plans)

    def __getitem__(self, index: int) -> RawConversation:
        item, scene = self.item(index)
        role = TASKS[self._task][1]
        if role == "remade":
            return self._reflection(index, item, scene)
        turns = [(Role(speaker), said) for speaker, said in item.before] + [(Role.USER, item.user)]
        messages = [text_message(speaker, said) for speaker, said in turns]
        answer = text_message(Role.ASSISTANT, item.answer)
        wav = None if role == "absent" else Waveform(render(scene, self._sounds.sample_rate), self._sounds.sample_rate)
        if role == "heard":
            messages += [sound_message(Role.USER, wav), answer]
        else:
            messages += [answer] if role == "absent" else [answer, sound_message(Role.ASSISTANT, wav)]
        name = f"{self._sounds.id(index)}-{self._task}"
        return RawConversation(name, tuple(messages), plain(item.plan), None if role == "absent" else scene.to_dict())

    def _reflection(self, index: int, item: Item, scene: Scene) -> RawConversation:
        """Half of those that were made again are listened to again, and found to be as planned."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([4, self._sounds.seed, index])))
        wanted, spoilt = by_ear(item.plan), item.first != by_ear(item.plan)
        first, twice = realise(item.first, rng) if spoilt else scene, rng.random() < 0.5
        messages = [text_message(Role.USER, item.user), text_message(Role.ASSISTANT, item.answer)]
        for made, plan in [(first, item.first)] + [(scene, wanted)] * spoilt:
            wav = Waveform(render(made, self._sounds.sample_rate), self._sounds.sample_rate)
            messages.append(sound_message(Role.ASSISTANT, wav, learn=plan == wanted))
            if plan == wanted and spoilt and not twice:
                break
            difference = compare(rich_caption(wanted), rich_caption(plan))
            messages += [text_message(Role.USER, LISTEN), sound_message(Role.USER, wav)]
            messages.append(text_message(Role.ASSISTANT, rich_caption(plan).write()))
            messages.append(text_message(Role.USER, CRITICISE.format(rich_caption(wanted).write())))
            messages.append(text_message(Role.ASSISTANT, difference.sentence()))
            if plan != wanted:
                messages.append(text_message(Role.USER, MAKE_RIGHT))
        return RawConversation(f"{self._sounds.id(index)}-reflect", tuple(messages), plain(item.plan), scene.to_dict())

    def fingerprint(self) -> dict[str, Any]:
        return {"task": self._task, "revision": _REVISION, "sounds": self._sounds.fingerprint()}


_REVISION = 1  # to be raised whenever the same settings start to give other conversations
