"""Pairs: two answers to one prompt, of which one is preferred. A record holds the prompt once."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from ualm_jax.data.dataset.records import Record
from ualm_jax.tokens.types import Message

Part = TypeVar("Part")


class Conversation(NamedTuple):
    """Messages as in `Record`, and the sounds of those that are a number of samples."""

    messages: tuple[Message, ...]
    clips: tuple[bytes, ...]


def conversations_of(record: Record) -> tuple[Conversation, ...]:
    """The conversation of a record; of a pair two, chosen and rejected, each with the prompt, which is not learnt."""
    if record.pair is None:
        return (Conversation(record.messages, record.clips),)
    clips = iter(record.clips)
    sounds = [next(clips) if isinstance(message.content, int) else None for message in record.messages]
    found = []
    messages = [
        dataclasses.replace(message, learn=message.learn and place >= record.pair[0])
        for place, message in enumerate(record.messages)
    ]
    for parts in split_pair(list(zip(messages, sounds, strict=True)), record.pair):
        said, heard = zip(*parts, strict=True)
        found.append(Conversation(said, tuple(sound for sound in heard if sound is not None)))
    return tuple(found)


def split_pair(parts: Sequence[Part], pair: tuple[int, int]) -> tuple[list[Part], list[Part]]:
    """The messages of the prompt and the chosen answer, and those of the prompt and the rejected one."""
    prompt, chosen = pair
    return list(parts[: prompt + chosen]), [*parts[:prompt], *parts[prompt + chosen :]]


def join_pair(
    prompt: Sequence[Part], chosen: Sequence[Part], rejected: Sequence[Part]
) -> tuple[tuple[Part, ...], tuple[int, int]]:
    """Messages and `pair` of a record, whose inverse is `split_pair`."""
    return (*prompt, *chosen, *rejected), (len(prompt), len(chosen))
