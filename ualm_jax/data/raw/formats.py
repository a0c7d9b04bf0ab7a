"""The published raw formats, and free dialogues: one JSON record to one conversation.

text           {"input": [{"role": "user", "content": "..."}, ...], "output": "..."}; a turn may have "learn", too
understanding  {"id": "...", "sound": "a.wav", "start_time": 0.0, "end_time": 10.0, "duration": 10.0,
                "conversations": [{"from": "human", "value": "<sound>\\nWhat is it?"}, {"from": "gpt", "value": "..."}]}
generation     {"location": "a.wav", "start_time": 0.0, "end_time": 10.0, "duration": 10.0, "caption": "..."}
dialogue       {"messages": [["user", "text", "..."], ["assistant", "audio", "b.wav"], ...]}, or for a message
               {"role": "assistant", "modality": "audio", "content": "b.wav", "learn": false}: read, but no target;
               by default those of the assistant are learnt
pair           {"prompt": "..." or messages as in a dialogue, "chosen": "..." or messages, "rejected": ...}

A record may have an "id"; else it is named after file and line. Segments are in seconds and have other spellings, too
(segment.py). A text is kept as it is written, but for the space next to a <sound> and around a caption. Other fields
are not used, and counted; those that may name a segment make a bad record.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ualm_jax.data.raw.conversation import RawConversation, RawMessage, sound_message
from ualm_jax.data.raw.files import FileSound, beside, inside
from ualm_jax.data.raw.json_records import JsonRecords
from ualm_jax.data.raw.schema import Caption, Fields, Text, parse, take
from ualm_jax.data.raw.segment import FIELDS, Segment, refuse_unknown_segments
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError
from ualm_jax.tokens.types import Modality, Role

_SOUND = "<sound>"
_AFTER_SOUND = re.compile(r"\A(\s*\n|\s+)")  # the rest of its line and empty lines, but not the indentation of a text
_SPEAKERS = {"human": Role.USER, "user": Role.USER, "gpt": Role.ASSISTANT, "assistant": Role.ASSISTANT}
_SPEAKERS["system"] = Role.SYSTEM
_Speaker = Literal["human", "user", "gpt", "assistant", "system"]
_A_MESSAGE = "[role, modality, content] or an object of these"
_ENTRIES = {  # how messages call the entries of lists
    "input": ("'input' turn {}", "an object"),
    "conversations": ("'conversations' turn {}", "an object"),
    "messages": ("message {}", _A_MESSAGE),
    "prompt": ("'prompt' message {}", _A_MESSAGE),
    "chosen": ("'chosen' message {}", _A_MESSAGE),
    "rejected": ("'rejected' message {}", _A_MESSAGE),
}


class _TextTurn(Fields):
    role: _Speaker
    content: Text
    learn: bool | None = None


class _Text(Fields):
    input: Annotated[list[_TextTurn], Field(min_length=1)]
    output: Text


class _UnderstandingTurn(Fields):
    speaker: Annotated[_Speaker, Field(alias="from")]
    value: Text


class _Understanding(Segment):
    sound: Text | list[Text]
    conversations: Annotated[list[_UnderstandingTurn], Field(min_length=1)]


class _Generation(Segment):
    location: Text
    caption: Caption


class _Message(Fields):
    role: _Speaker
    modality: Any
    content: Text
    learn: bool | None = None


def _with_names(message: Any) -> Any:
    if isinstance(message, list) and len(message) == 3:
        return dict(zip(("role", "modality", "content"), message, strict=True))
    return message


_Messages = Annotated[list[Annotated[_Message, BeforeValidator(_with_names)]], Field(min_length=1)]


class _Dialogue(Fields):
    messages: _Messages


def _said_by(role: Role) -> BeforeValidator:
    """A text alone is one message."""
    return BeforeValidator(lambda value: [[role.value, "text", value]] if isinstance(value, str) else value)


class _Pair(Fields):
    prompt: Annotated[_Messages, _said_by(Role.USER)]
    chosen: Annotated[_Messages, _said_by(Role.ASSISTANT)]
    rejected: Annotated[_Messages, _said_by(Role.ASSISTANT)]


@dataclasses.dataclass(frozen=True)
class _Place:
    """where: file, line and id of a record, for messages; root: what its sound paths start from."""

    where: str
    root: str

    def fail(self, reason: str) -> BadRecord:
        return BadRecord(f"{self.where}: {reason}")

    def sound(self, path: str, start: float = 0.0, end: float | None = None, whole: float | None = None) -> FileSound:
        return FileSound(inside(self.root, path, self.where), start, end, whole)


def _text(record: _Text, place: _Place) -> Iterable[RawMessage]:
    for turn in record.input:
        yield RawMessage(_SPEAKERS[turn.role], Modality.TEXT, turn.content, learn=turn.learn)
    yield RawMessage(Role.ASSISTANT, Modality.TEXT, record.output)


def _understanding(record: _Understanding, place: _Place) -> Iterable[RawMessage]:
    paths = [record.sound] if isinstance(record.sound, str) else record.sound
    given = [name for name in record.given() if name != "duration"]
    if given and len(paths) != 1:
        raise place.fail(f"{given[0]!r} does not say which of the {len(paths)} sounds it is of")
    start, end = record.bounds(place.where)
    sounds = [place.sound(path, start, end, record.whole if len(paths) == 1 else None) for path in paths]
    used = 0
    for number, turn in enumerate(record.conversations, start=1):
        role, parts = _SPEAKERS[turn.speaker], turn.value.split(_SOUND)
        for index, part in enumerate(parts):
            if index > 0:
                if used == len(sounds):
                    raise place.fail(f"turn {number} has a {_SOUND} more than the {len(sounds)} of 'sound'")
                yield sound_message(role, sounds[used])
                used += 1
                part = _AFTER_SOUND.sub("", part)
            if index < len(parts) - 1:
                part = part.rstrip()
            if part.strip():
                yield RawMessage(role, Modality.TEXT, part)
    if used != len(sounds):
        raise place.fail(f"'sound' names {len(sounds)} files, the conversation has {used} {_SOUND}")


def _generation(record: _Generation, place: _Place) -> Iterable[RawMessage]:
    yield RawMessage(Role.USER, Modality.TEXT, record.caption)
    start, end = record.bounds(place.where)
    yield sound_message(Role.ASSISTANT, place.sound(record.location, start, end, record.whole))


def _dialogue(record: _Dialogue, place: _Place) -> Iterable[RawMessage]:
    yield from _read_messages(record.messages, place, "")
    if any(message.learn is False for message in record.messages) and not any(map(_is_learnt, record.messages)):
        raise place.fail("no message is learnt; say 'learn': true in one of them, or leave the record out")


def _pair(record: _Pair, place: _Place) -> Iterable[RawMessage]:
    for name in ("prompt", "chosen", "rejected"):
        yield from _read_messages(getattr(record, name), place, f"{name!r} ")


def _read_messages(messages: Sequence[_Message], place: _Place, which: str) -> Iterable[RawMessage]:
    for number, message in enumerate(messages, start=1):
        role, modality = _SPEAKERS[message.role], message.modality
        if modality == "text":
            yield RawMessage(role, Modality.TEXT, message.content, learn=message.learn)
        elif modality not in ("audio", "speech"):
            raise place.fail(f"{which}message {number}: the modality must be text, audio or speech, found {modality!r}")
        elif message.learn and role != Role.ASSISTANT:
            raise place.fail(
                f"{which}message {number}: sound of the {role} is heard, not made, so it can not be learnt"
            )
        else:
            yield sound_message(role, place.sound(message.content), modality, message.learn)


def _is_learnt(message: _Message) -> bool:
    return _SPEAKERS[message.role] == Role.ASSISTANT if message.learn is None else message.learn


FORMATS: dict[str, tuple[type[Fields], Callable[[Any, _Place], Iterable[RawMessage]]]] = {
    "text": (_Text, _text),
    "understanding": (_Understanding, _understanding),
    "generation": (_Generation, _generation),
    "dialogue": (_Dialogue, _dialogue),
    "pair": (_Pair, _pair),
}


class JsonConversations:
    """The conversations of a JSON or JSONL file in one of FORMATS. Implements ConversationSource.

    `root` replaces the file's folder as the place that relative sound paths start from and stay in. ignore: fields to
    pass over, whatever they seem to say. Raises UserError for a file that is missing or empty; on
    access, BadRecord for what is wrong with one record.
    """

    left_out = ()

    def __init__(
        self,
        path: str | os.PathLike,
        format: str,
        root: str | os.PathLike | None = None,
        *,
        ignore: Sequence[str] = (),
    ):
        if format not in FORMATS:
            raise UserError(f"the format must be one of {', '.join(FORMATS)}, got {format!r}")
        self._records, self._format, self._ignore = JsonRecords(path), format, tuple(ignore)
        self.name = self._records.name
        self._root = os.fspath(root) if root is not None else beside(path)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> RawConversation:
        record, where = self._records[index], self._records.where(index)
        name = record.pop("id" if "id" in record else "example_id", f"{self.name}:{self._records.number(index)}")
        if type(name) not in (str, int) or not str(name).strip():
            raise BadRecord(f"{where}: 'id' must be a text that is not empty, found {name!r}")
        try:
            return self._conversation(record, str(name), _Place(f"{where} (id {name})", self._root))
        except BadRecord as error:
            raise BadRecord(str(error), str(name)) from error

    def digest(self, indices: range) -> dict[str, Any]:
        """The fingerprint of a range of records alone."""
        return self.fingerprint() | {"sha256": self._records.digest(indices), "count": len(indices)}

    def fingerprint(self) -> dict[str, Any]:
        """By content, not by folder. The sound files themselves are not hashed."""
        return {
            "kind": self._format,
            "name": self.name,
            "sha256": self._records.sha256,
            "count": len(self),
            "ignore": list(self._ignore),
        }

    def _conversation(self, record: dict[str, Any], name: str, place: _Place) -> RawConversation:
        model, read = FORMATS[self._format]
        ignored = take(record, self._ignore)
        record = {field: value for field, value in record.items() if value is not None or field not in FIELDS}
        fields = parse(model, record, place.where, _ENTRIES)
        messages = tuple(read(fields, place))
        turns = [turn for value in dict(fields).values() if isinstance(value, list) for turn in value]
        extra = fields.extra | {
            name: value for turn in turns if isinstance(turn, Fields) for name, value in turn.extra.items()
        }
        if any(message.modality != Modality.TEXT for message in messages):
            refuse_unknown_segments(extra, place.where)
        several = isinstance(fields, _Understanding) and isinstance(fields.sound, list) and len(fields.sound) > 1
        unused = (*ignored, *extra, *(("duration",) if several and fields.duration is not None else ()))
        pair = (len(fields.prompt), len(fields.chosen)) if isinstance(fields, _Pair) else None
        return RawConversation(name, messages, getattr(fields, "caption", ""), unused=unused, pair=pair)
