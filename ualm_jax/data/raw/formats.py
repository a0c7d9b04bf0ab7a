"""The published raw formats, and free dialogues: one JSON record to one conversation.

text           {"input": [{"role": "user", "content": "..."}, ...], "output": "..."}
understanding  {"id": "...", "sound": "a.wav", "duration": 10.0,
                "conversations": [{"from": "human", "value": "<sound>\\nWhat is it?"}, {"from": "gpt", "value": "..."}]}
generation     {"location": "a.wav", "start_time": 0.0, "end_time": 10.0, "duration": 10.0, "caption": "...",
                "sample_rate": 44100}
dialogue       {"messages": [["user", "text", "..."], ["assistant", "audio", "b.wav"], ...]}

A record may have an "id"; else it is named after file and line.
"""

import math
import os
from collections.abc import Callable
from typing import Any

from ualm_jax.data.raw.conversation import RawConversation, RawMessage, sound_message
from ualm_jax.data.raw.files import FileSound, beside, inside
from ualm_jax.data.raw.json_records import JsonRecords
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError
from ualm_jax.tokens.types import Modality, Role

_SOUND = "<sound>"
_SPEAKERS = {"human": Role.USER, "user": Role.USER, "gpt": Role.ASSISTANT, "assistant": Role.ASSISTANT}
_SPEAKERS["system"] = Role.SYSTEM
_LONGEST = 1e9  # seconds; more is a mistake


class _Reader:
    """Fields of a record, checked. where: file, line and id, for messages; root: what sound paths start from."""

    def __init__(self, record: dict[str, Any], where: str, root: str):
        self.record, self.where, self.root = record, where, root

    def fail(self, reason: str) -> BadRecord:
        return BadRecord(f"{self.where}: {reason}")

    def text(self, value: Any, field: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.fail(f"{field!r} must be a text that is not empty, found {value!r}")
        return value.strip()

    def entries(self, field: str) -> list[Any]:
        value = self.record.get(field)
        if not isinstance(value, list) or not value:
            raise self.fail(f"{field!r} must be a list that is not empty, found {value!r}")
        return value

    def seconds(self, field: str) -> float | None:
        value = self.record.get(field)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 <= value < _LONGEST:
            raise self.fail(f"{field!r} must be a number of seconds from 0 on, found {value!r}")
        return float(value)

    def sound(self, path: Any, field: str, start: float = 0.0, end: float | None = None) -> FileSound:
        return FileSound(inside(self.root, self.text(path, field), self.where), start, end)

    def role(self, value: Any, field: str) -> Role:
        if not isinstance(value, str) or value not in _SPEAKERS:
            raise self.fail(f"{field!r} must be one of {', '.join(_SPEAKERS)}, found {value!r}")
        return _SPEAKERS[value]


def _text(reader: _Reader) -> tuple[RawMessage, ...]:
    messages = []
    for number, turn in enumerate(reader.entries("input"), start=1):
        if not isinstance(turn, dict):
            raise reader.fail(f"'input' turn {number} must be an object, found {turn!r}")
        role = reader.role(turn.get("role"), "role")
        messages.append(RawMessage(role, Modality.TEXT, reader.text(turn.get("content"), "content")))
    output = reader.text(reader.record.get("output"), "output")
    return (*messages, RawMessage(Role.ASSISTANT, Modality.TEXT, output))


def _understanding(reader: _Reader) -> tuple[RawMessage, ...]:
    given = reader.record.get("sound")
    sounds = [reader.sound(path, "sound") for path in (given if isinstance(given, list) else [given])]
    messages, used = [], 0
    for number, turn in enumerate(reader.entries("conversations"), start=1):
        if not isinstance(turn, dict):
            raise reader.fail(f"'conversations' turn {number} must be an object, found {turn!r}")
        role = reader.role(turn.get("from"), "from")
        for place, part in enumerate(reader.text(turn.get("value"), "value").split(_SOUND)):
            if place > 0:
                if used == len(sounds):
                    raise reader.fail(f"turn {number} has a {_SOUND} more than the {len(sounds)} of 'sound'")
                messages.append(sound_message(role, sounds[used]))
                used += 1
            if part.strip():
                messages.append(RawMessage(role, Modality.TEXT, part.strip()))
    if used != len(sounds):
        raise reader.fail(f"'sound' names {len(sounds)} files, the conversation has {used} {_SOUND}")
    return tuple(messages)


def _generation(reader: _Reader) -> tuple[RawMessage, ...]:
    start, end, duration = (reader.seconds(field) for field in ("start_time", "end_time", "duration"))
    start = 0.0 if start is None else start
    if end is None and duration is not None:
        end = start + duration
    if end is not None and not start < end < math.inf:
        raise reader.fail(f"'start_time' must be before the end, found {start:g} and {end:g}")
    sound = reader.sound(reader.record.get("location"), "location", start, end)
    caption = reader.text(reader.record.get("caption"), "caption")
    return RawMessage(Role.USER, Modality.TEXT, caption), sound_message(Role.ASSISTANT, sound)


def _dialogue(reader: _Reader) -> tuple[RawMessage, ...]:
    messages = []
    for number, turn in enumerate(reader.entries("messages"), start=1):
        if not isinstance(turn, list) or len(turn) != 3:
            raise reader.fail(f"message {number} must be [role, modality, content], found {turn!r}")
        role, modality, content = reader.role(turn[0], "role"), turn[1], turn[2]
        if modality == "text":
            messages.append(RawMessage(role, Modality.TEXT, reader.text(content, f"message {number}")))
        elif modality in ("audio", "speech"):
            messages.append(sound_message(role, reader.sound(content, f"message {number}"), modality))
        else:
            raise reader.fail(f"message {number}: the modality must be text, audio or speech, found {modality!r}")
    return tuple(messages)


FORMATS: dict[str, Callable[[_Reader], tuple[RawMessage, ...]]] = {
    "text": _text,
    "understanding": _understanding,
    "generation": _generation,
    "dialogue": _dialogue,
}


class JsonConversations:
    """The conversations of a JSON or JSONL file in one of FORMATS. Implements ConversationSource.

    `root` replaces the file's folder as the place that relative sound paths start from and stay in.
    Raises UserError for a file that is missing or empty; on access, BadRecord for what is wrong with one record.
    """

    left_out = ()

    def __init__(self, path: str | os.PathLike, format: str, root: str | os.PathLike | None = None):
        if format not in FORMATS:
            raise UserError(f"the format must be one of {', '.join(FORMATS)}, got {format!r}")
        self._records, self._format = JsonRecords(path), format
        self.name = self._records.name
        self._root = os.fspath(root) if root is not None else beside(path)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> RawConversation:
        record, where = self._records[index], self._records.where(index)
        name = record.get("id", record.get("example_id", f"{self.name}:{self._records.number(index)}"))
        if not isinstance(name, str | int) or not str(name).strip():
            raise BadRecord(f"{where}: 'id' must be a text that is not empty, found {name!r}")
        messages = FORMATS[self._format](_Reader(record, f"{where} (id {name})", self._root))
        caption = messages[0].content if self._format == "generation" else ""
        return RawConversation(str(name), messages, caption)

    def fingerprint(self) -> dict[str, Any]:
        """By content, not by folder. The sound files themselves are not hashed."""
        records = self._records
        return {"kind": self._format, "name": self.name, "sha256": records.sha256, "count": len(self)}
