"""A prepared dataset on disk: what `dataset.json` says, checked against what is there.

DIR/dataset.json                             counts, hashes, vocabulary sizes, versions
DIR/train.array_record-00000-of-00042        conversations (records.py), in the order of the source
DIR/lengths.npy, clips.npy, clip_ends.npy    how long each conversation is (lengths.py)
DIR/quarantine.jsonl                         records that are unusable or were left out, and why
DIR/features.json, dataset_info.json         the same for TensorFlow Datasets
DIR/tokenizer/, DIR/codec/                   what made the tokens, so that the dataset needs nothing else

Datasets of format 2 are read, too: there lengths.npy is called rows.npy, filters gates, and positions rows.
"""

import bisect
import dataclasses
import functools
import hashlib
import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from ualm_jax.data.dataset.lengths import length_files
from ualm_jax.data.dataset.records import from_bytes
from ualm_jax.data.dataset.schema import check_description
from ualm_jax.errors import UserError
from ualm_jax.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    import grain

FORMAT = 3
_OLDEST_FORMAT = 2
_OPEN_SHARDS = 512  # of all datasets of a process, at most
# For records in random order. By default a megabyte of every shard would be read to find its index.
_READER = "readahead_buffer_size:0,max_parallelism:0,footer_prefetch_bytes:65536"


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset without reading its records.

    key: 16 hexadecimal digits that differ between datasets of different content, wherever they lie.
    vocabulary: the smallest one that holds all ids.
    records, quarantined: conversations stored, and left out. filters: how many each filter found (filters.py).
    unused: members, files, columns and fields of the source that were not used.
    audio_hours, heard_hours: target audio behind the stored codes, and audio input. speech_hours: how much of the
    target audio is speech, None in datasets of versions that did not count it.
    pairs: how many records are pairs, none or all; counts and lengths are then of both conversations of each.
    text_tokens: ids of all texts. positions: of all conversations' token grids, encoder frames not counted.
    longest: positions of the longest conversation. sample_rate, frame_rate: of the codec.
    shards: in order; shard_records: how many each holds.
    made_from: identifies source, codec and tokenizer. versions: of the libraries that wrote it.
    """

    directory: Path
    key: str
    vocabulary: Vocabulary
    records: int
    quarantined: int
    filters: dict[str, int]
    audio_hours: float
    heard_hours: float
    text_tokens: int
    positions: int
    longest: int
    sample_rate: int
    frame_rate: float
    shards: tuple[Path, ...]
    shard_records: tuple[int, ...]
    made_from: dict[str, Any]
    versions: dict[str, str]
    unused: int = 0
    pairs: int = 0
    speech_hours: float | None = None

    @property
    def name(self) -> str:
        return self.directory.name


def read_description(directory: Path) -> dict[str, Any]:
    """`dataset.json` as this version writes it. Raises UserError if it is missing, of another format or damaged."""
    path = directory / "dataset.json"
    if not path.is_file():
        if directory.parts[:1] and directory.parts[0].endswith(":"):  # of a URL, of which Path keeps one slash
            raise UserError(
                f"{directory.parts[0]}//{'/'.join(directory.parts[1:])}: a dataset is read at random and must lie in a "
                "file system; copy it here, or mount the bucket"
            )
        raise UserError(f"{directory}: no dataset here, expected a folder made by `ualm data prepare`")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # also what is not UTF-8
        raise UserError(f"{path}: damaged, it is no JSON ({error}); copy or prepare the dataset again") from error
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(f"{path}: damaged, expected an object with the field format; copy or prepare the dataset again")
    version = content["format"]
    if version not in (_OLDEST_FORMAT, FORMAT):
        raise UserError(
            f"{path}: has format {version}, expected {_OLDEST_FORMAT} or {FORMAT}; prepare the dataset again with "
            "this version"
        )
    if version == _OLDEST_FORMAT:
        _rename(content.get("counts"), {"gates": "filters", "rows": "positions"})
        _rename(content.get("made_from"), {"gates": "filters"})
    check_description(content, path)
    return content


def _rename(content: Any, names: dict[str, str]) -> None:
    for old, new in names.items() if isinstance(content, dict) else ():
        if old in content:
            content[new] = content.pop(old)


def content_key(description: dict[str, Any]) -> str:
    """`DatasetInfo.key`."""
    return hashlib.sha256(json.dumps(description["shards"]).encode()).hexdigest()[:16]


def open_dataset(directory: str | os.PathLike) -> DatasetInfo:
    """Read `dataset.json`. Raises UserError if it is missing, of another format or damaged, if a shard is missing, or
    if its sounds are not codes yet."""
    directory = Path(directory)
    content = read_description(directory)
    if content["vocabulary"] is None:
        raise UserError(
            f"{directory}: its sounds are not codes yet; run `ualm data encode {directory} --codec DIR --out OUT` "
            "and read OUT"
        )
    info = DatasetInfo(
        directory=directory,
        key=content_key(content),
        vocabulary=Vocabulary(**content["vocabulary"]),
        **content["counts"],
        **content["audio"],
        shards=tuple(directory / shard["name"] for shard in content["shards"]),
        shard_records=tuple(shard["records"] for shard in content["shards"]),
        made_from=content["made_from"],
        versions=content["versions"],
    )
    for file in (*info.shards, *length_files(directory)):
        if not file.is_file():
            raise UserError(f"{file}: this file of the dataset is missing; copy the dataset again")
    return info


def open_records(info: DatasetInfo) -> "grain.MapDataset":
    """The records of a dataset (`records.Record`) in the order of its source, by index.

    Raises UserError, now or on access, where a shard is damaged.
    """
    import grain  # here: it takes half a second, and only those who read records need it

    parse = functools.partial(from_bytes, num_codebooks=info.vocabulary.num_codebooks)
    return grain.MapDataset.source(record_bytes(info)).map(parse)


def record_bytes(info: Any) -> Sequence:
    """The records of a DatasetInfo or `sounds.SoundsInfo` as they are stored, by index. Raises UserError as above."""
    return _Shards(info)


class _Shards(Sequence):
    """The shards' records as bytes, for grain; array_record verifies the checksum of what it reads.

    A shard is opened when a record of it is asked for, and of all datasets together only the last used ones stay open:
    there may be more of them than files that a process may have open, and each takes some 10 kB.
    """

    def __init__(self, info: Any):
        self._info = info
        self._ends = np.cumsum(info.shard_records).tolist()
        if len(self) != info.records:
            raise self._damaged(f"{len(self)} records in all, expected {info.records}")

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> bytes:
        shard = bisect.bisect_right(self._ends, index)
        position = index - self._ends[shard] + self._info.shard_records[shard]
        try:
            return self._reader(shard).read([position])[0]
        except RuntimeError as error:
            if "too many open files" in str(error).lower():
                raise UserError(
                    f"{self._info.directory}: too many open files; allow more with `ulimit -n`, or prepare datasets "
                    "with fewer and larger shards"
                ) from error
            raise self._damaged(error) from error

    def _reader(self, shard: int) -> ArrayRecordReader:
        reader, records = _open_shard(os.fspath(self._info.shards[shard]), self._info.key)
        expected = self._info.shard_records[shard]
        if records != expected:
            raise self._damaged(f"{self._info.shards[shard].name} holds {records} records, expected {expected}")
        return reader

    def _damaged(self, reason: RuntimeError | str) -> UserError:
        return UserError(
            f"{self._info.directory}: a shard is damaged ({str(reason) or 'truncated'}); "
            "compare them with the sha256 sums in dataset.json, and copy or prepare the dataset again"
        )


def _max_open_shards() -> int:
    """Half of the files that the process may have open, and no more than _OPEN_SHARDS."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _OPEN_SHARDS if allowed == resource.RLIM_INFINITY else min(_OPEN_SHARDS, max(allowed // 2, 1))


@functools.lru_cache(_max_open_shards())
def _open_shard(path: str, key: str) -> tuple[ArrayRecordReader, int]:
    """A reader and how many records it has. key: of the dataset, since another one may come to lie at the same path."""
    reader = ArrayRecordReader(path, _READER, file_reader_buffer_size=1 << 15)
    return reader, reader.num_records()
