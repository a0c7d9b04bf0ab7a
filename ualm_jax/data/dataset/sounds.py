"""A dataset whose sounds are not encoded yet: what `ualm data prepare --sounds-only` leaves.

It has the files of a finished dataset (folder.py), but its records hold sound instead of codes, and `vocabulary` is
null in dataset.json.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from ualm_jax.data.dataset.codec_sound import CodecShape
from ualm_jax.data.dataset.folder import content_key, read_description
from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SoundsInfo:
    """The same facts as DatasetInfo has. shape: of the codec that will encode the sounds."""

    directory: Path
    key: str
    shape: CodecShape
    records: int
    quarantined: int
    filters: dict[str, int]
    audio_hours: float
    heard_hours: float
    longest: int
    shards: tuple[Path, ...]
    shard_records: tuple[int, ...]
    shard_sha256: tuple[str, ...]
    made_from: dict[str, Any]
    unused: int = 0


def open_sounds(directory: str | os.PathLike) -> SoundsInfo:
    """Raises UserError where there is no such dataset, it is damaged, or its sounds are codes already."""
    directory = Path(directory)
    content = read_description(directory)
    if content["vocabulary"] is not None:
        raise UserError(f"{directory}: its sounds are codes already; train on it as it is")
    counts = {field.name for field in dataclasses.fields(SoundsInfo)} & set(content["counts"])
    return SoundsInfo(
        directory=directory,
        key=content_key(content),
        shape=CodecShape(**content["audio"]),
        **{name: content["counts"][name] for name in counts},
        shards=tuple(directory / shard["name"] for shard in content["shards"]),
        shard_records=tuple(shard["records"] for shard in content["shards"]),
        shard_sha256=tuple(shard["sha256"] for shard in content["shards"]),
        made_from=content["made_from"],
    )
