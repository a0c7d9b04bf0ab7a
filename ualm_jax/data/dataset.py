"""A prepared dataset on disk: what `dataset.json` says, checked against what is there.

DIR/dataset.json                             counts, hashes, vocabulary sizes, versions
DIR/train.array_record-00000-of-00042        conversations (records.py), in the order of the source
DIR/quarantine.jsonl                         what could not be used, and why
DIR/tokenizer/, DIR/codec/                   what made the tokens, so that the dataset needs nothing else
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from ualm_jax.errors import UserError
from ualm_jax.tokens.vocabulary import Vocabulary

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset without reading its records.

    task: name in `tokens.tasks.TASKS`.
    vocabulary: the smallest one that holds all ids.
    records, quarantined: conversations stored, and sounds left out.
    audio_hours: sound behind the stored codes.
    text_tokens: ids of all captions. rows: token grid rows of all conversations. longest: of one conversation.
    shards: in order; `made_from` identifies source, codec and tokenizer; `versions` the libraries that wrote it.
    """

    directory: Path
    task: str
    vocabulary: Vocabulary
    records: int
    quarantined: int
    audio_hours: float
    text_tokens: int
    rows: int
    longest: int
    sample_rate: int
    frame_rate: float
    shards: tuple[Path, ...]
    made_from: dict[str, Any]
    versions: dict[str, str]


def open_dataset(directory: str | os.PathLike) -> DatasetInfo:
    """Read `dataset.json`. Raises UserError if it is missing, of another format or damaged, or lacks a shard."""
    directory = Path(directory)
    path = directory / "dataset.json"
    if not path.is_file():
        raise UserError(f"{directory}: no dataset here, expected a folder made by `ualm data prepare`")
    try:
        content = json.loads(path.read_text())
        version = content["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error!r}), prepare the dataset again") from error
    if version != FORMAT:
        raise UserError(f"{path}: has format {version}, expected {FORMAT}; prepare the dataset again with this version")
    try:
        info = DatasetInfo(
            directory=directory,
            task=content["made_from"]["task"],
            vocabulary=Vocabulary(**content["vocabulary"]),
            **content["counts"],
            **content["audio"],
            shards=tuple(directory / shard["name"] for shard in content["shards"]),
            made_from=content["made_from"],
            versions=content["versions"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error!r}), prepare the dataset again") from error
    for shard in info.shards:
        if not shard.is_file():
            raise UserError(f"{shard}: this shard is missing, one of {len(info.shards)}; copy the dataset again")
    return info
