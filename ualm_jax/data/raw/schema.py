"""What the fields of a raw record must be, and one sentence that says what is wrong with them."""

import reprlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ualm_jax.data.raw.sound_source import BadRecord

Text = Annotated[str, StringConstraints(pattern=r"\S")]  # kept as it is written
Caption = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Seconds = Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]  # more is a mistake

_TEXT, _SECONDS, _LIST = "a text that is not empty", "a number of seconds from 0 on", "a list that is not empty"
_ABSENT = object()
_EXPECTED = {  # by pydantic's kinds of error
    **dict.fromkeys(("string_type", "string_too_short", "string_pattern_mismatch", "string_unicode"), _TEXT),
    **dict.fromkeys(("float_type", "finite_number", "greater_than_equal", "less_than"), _SECONDS),
    **dict.fromkeys(("list_type", "too_short"), _LIST),
    "bool_type": "true or false",
}


class Fields(BaseModel):
    """A JSON object with known fields; nothing is converted. `extra` holds the others."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    @property
    def extra(self) -> dict[str, Any]:
        return self.__pydantic_extra__ or {}


Model = TypeVar("Model", bound=Fields)
Entries = Mapping[str, tuple[str, str]]


def parse(model: type[Model], record: dict[str, Any], where: str, entries: Entries = MappingProxyType({})) -> Model:
    """The record, or BadRecord: `where` (file, line, id) and what is wrong with the first field that is.

    entries: how messages call an entry of a list, and what it must be, by the list's field, such as
    {"input": ("turn {}", "an object")}.
    """
    try:
        return model.model_validate(record)
    except ValidationError as error:
        raise BadRecord(f"{where}: {_sentence(error.errors(include_url=False)[0], entries)}") from error


def take(record: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Remove these fields from the record; those that it had."""
    return tuple(name for name in names if record.pop(name, _ABSENT) is not _ABSENT)


def _sentence(error: dict[str, Any], entries: Entries) -> str:
    field, *rest = error["loc"]
    kind, expected, entry = error["type"], _EXPECTED.get(error["type"], error["msg"]), ""
    if field in entries and rest:
        entry, expected_entry = entries[field]
        entry = entry.format(rest[0] + 1)
        if len(rest) == 1:
            return f"{entry} must be {expected_entry}, found {reprlib.repr(error['input'])}"
        entry, field = f"{entry}: ", rest[1]
    if kind == "missing":
        return f"{entry}the field {field!r} is missing"
    if kind == "literal_error":
        expected = "one of " + error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
    return f"{entry}{field!r} must be {expected}, found {reprlib.repr(error['input'])}"
