"""A file of prompts and questions: a line each, as plain text or as JSON."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ualm_jax.errors import UserError

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclasses.dataclass(frozen=True)
class Item:
    """One line. id: names its result, by default the number of its line from 0, as five digits.

    audio: a sound file to be asked about. What is None is as the whole job has it; but the seed is then the job's plus
    the number of the line times the candidates of each.
    """

    id: str
    prompt: str
    audio: str | None = None
    modality: str | None = None
    negative: str | None = None
    seconds: int | float | None = None
    seed: int | None = None

    TYPES: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        "id": str,
        "prompt": str,
        "audio": str,
        "modality": str,
        "negative": str,
        "seconds": (int, float),
        "seed": int,
    }

    def kind(self, modality: str) -> str:
        """The modality of its answer, in a job of this one."""
        return self.modality or ("text" if self.audio is not None else modality)

    @property
    def key(self) -> str:
        """Changes with all that is asked for."""
        return key_of(self)


def key_of(item: Any) -> str:
    """The hash of a dataclass's fields."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(item), sort_keys=True).encode()).hexdigest()[:16]


def read_items(lines: Iterable[str], source: str, kind: type = Item) -> list[Any]:
    """Lines of text, or of JSON objects with the fields of `kind` (`Item`, or a dataclass like it, with an id, a
    prompt and TYPES); blank lines are left out.

    source: the name of the file, for messages. What a line asks for is looked at when its turn comes. Raises UserError
    for a line that is no such object, an id that is no file name or stands twice, and where there are no lines.
    """
    lines = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    items = [_item(line, index, f"{source}, line {number}", kind) for index, (number, line) in enumerate(lines)]
    seen: dict[str, int] = {}
    for item, (number, _) in zip(items, lines, strict=True):
        if item.id.lower() in seen:  # some file systems do not tell capitals
            raise UserError(f"{source}: id {item.id!r} stands in line {seen[item.id.lower()]} and in line {number}.")
        seen[item.id.lower()] = number
    if not items:
        raise UserError(f"{source}: expected a prompt on each line, found none.")
    return items


def _item(line: str, index: int, place: str, kind: type) -> Any:
    if not line.startswith("{"):
        return kind(f"{index:05}", line)
    try:
        fields: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: begins like a JSON object but is none ({error}).") from None
    if "prompt" not in fields:
        raise UserError(f'{place}: has no "prompt".')
    for name, value in fields.items():
        if name not in kind.TYPES:
            raise UserError(f"{place}: there is no field {name!r}; the fields are {', '.join(kind.TYPES)}.")
        if value is not None and (not isinstance(value, kind.TYPES[name]) or isinstance(value, bool)):
            raise UserError(f"{place}: {name} can not be {value!r}.")
    try:
        item = kind(**{"id": f"{index:05}"} | fields)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if not _ID.fullmatch(item.id or ""):
        raise UserError(f"{place}: the id {item.id!r} is no name for a file; take letters, digits, _, - and dots.")
    return item
