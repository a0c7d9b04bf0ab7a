"""What the fields of dataset.json must be, and one sentence that says what is wrong with them."""

import reprlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ualm_jax.errors import UserError

_Whole = Annotated[int, Field(ge=0)]
_Size = Annotated[int, Field(ge=1)]
_Hours = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_EXPECTED = {  # by pydantic's kinds of error, where its own words are not a person's
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "an object"),
    **dict.fromkeys(("list_type", "too_short"), "a list that is not empty"),
}


class _Group(BaseModel):
    """Nothing is converted, and no field is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _Counts(_Group):
    records: _Size
    quarantined: _Whole
    unused: _Whole = 0
    filters: dict[str, _Whole]
    audio_hours: _Hours
    speech_hours: _Hours | None = None
    heard_hours: _Hours
    text_tokens: _Whole
    positions: _Whole
    longest: _Whole
    pairs: _Whole = 0


class _Vocabulary(_Group):
    text_size: _Size
    codebook_size: _Size
    num_codebooks: _Size = 8


class _Codes(_Group):
    sample_rate: _Size
    frame_rate: _Rate


class _Sounds(_Group):
    sample_rate: _Size
    hop: _Size
    codebooks: _Size


class _Shard(_Group):
    name: str
    records: _Whole
    sha256: str


class _Description(BaseModel):
    model_config = ConfigDict(strict=True)  # a later version may say more

    made_from: dict[str, Any]
    counts: _Counts
    shards: Annotated[list[_Shard], Field(min_length=1)]
    versions: dict[str, str]


class _Encoded(_Description):
    vocabulary: _Vocabulary
    audio: _Codes


class _Filters(BaseModel):
    drop: list[str]


class _MadeFrom(BaseModel):
    """What encoding goes by."""

    filters: _Filters
    shard_size: _Size


class _NotEncoded(_Description):
    made_from: _MadeFrom
    vocabulary: None
    audio: _Sounds


def check_description(content: dict[str, Any], path: Path) -> None:
    """Raises UserError that begins with `path` and names the first field that is not what it must be."""
    model = _NotEncoded if content.get("vocabulary", ()) is None else _Encoded
    try:
        model.model_validate(content)
    except ValidationError as error:
        raise UserError(
            f"{path}: damaged, {_sentence(error.errors(include_url=False)[0])}; copy or prepare the dataset again"
        ) from None


def _sentence(error: dict[str, Any]) -> str:
    field = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "missing":
            return f"the field {field} is missing"
        case "extra_forbidden":
            return f"there is no field {field}"
    expected = _EXPECTED.get(error["type"], error["msg"].removeprefix("Input should be "))
    return f"the field {field} must be {expected}, found {reprlib.repr(error['input'])}"
