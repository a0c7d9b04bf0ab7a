"""The reference's named tasks as conversations (`task_conf_ualm.py`). A free dialogue is its own messages."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ualm_jax.tokens.types import Message, Modality, Role


@dataclasses.dataclass(frozen=True)
class Task:
    """turns: (role, entry) in order, an entry being "text1", "text2" or "audio1"; audio_tag: see Message."""

    turns: tuple[tuple[Role, str], ...]
    audio_tag: str = "audio"


_SAY = ((Role.USER, "text1"), (Role.ASSISTANT, "audio1"))
_LISTEN = ((Role.USER, "text1"), (Role.USER, "audio1"), (Role.ASSISTANT, "text2"))

TASKS: dict[str, Task] = {
    "text_only": Task(((Role.USER, "text1"), (Role.ASSISTANT, "text2"))),
    "caption_to_audio": Task(_SAY),
    "audio_only": Task(_SAY),
    "transcription_to_speech": Task(_SAY, audio_tag="speech"),
    "audio_to_caption": Task(_LISTEN),
    "speech_to_transcription": Task(_LISTEN, audio_tag="speech"),
    "audio_to_conversation": Task(
        ((Role.USER, "audio1"), (Role.USER, "text1"), (Role.ASSISTANT, "text2")),
    ),
}


def task_messages(task: str, entries: Mapping[str, np.ndarray | int]) -> tuple[Message, ...]:
    """The conversation of a named task.

    entries: content by entry name, as `Message.content` wants it: token ids for text, codes for audio the
    assistant makes, a number of encoder frames for audio it hears. Raises ValueError for an unknown task, and
    for a missing or superfluous entry.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    turns = TASKS[task].turns
    if set(entries) != {entry for _, entry in turns}:
        wanted = ", ".join(sorted(entry for _, entry in turns))
        raise ValueError(f"task {task} needs the entries {wanted}, got {', '.join(sorted(entries))}")
    messages = []
    for role, entry in turns:
        if entry.startswith("text"):
            modality = Modality.TEXT
        else:
            modality = Modality.AUDIO if role == Role.ASSISTANT else Modality.CLIP
        messages.append(Message(role, modality, entries[entry], TASKS[task].audio_tag))
    return tuple(messages)
