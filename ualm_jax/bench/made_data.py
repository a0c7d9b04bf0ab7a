"""Datasets to measure loading with: random ids and codes of realistic lengths, through the real writer."""

import json
import os
import pathlib

import numpy as np

from ualm_jax.data.dataset import lengths as length_files
from ualm_jax.data.dataset.folder import DatasetInfo, open_dataset
from ualm_jax.data.dataset.records import Record, to_bytes
from ualm_jax.data.prepare.deduplicate import deduplicate
from ualm_jax.data.prepare.description import write_description
from ualm_jax.data.prepare.filters import Filters
from ualm_jax.data.prepare.partial import PartialDataset
from ualm_jax.data.prepare.reports import Stored
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(151_936, 1024)
LENGTHS = (
    "3 of 4 records: a caption of 10 to 60 ids and a sound of 10 s (500 frames; every third 2 to 10 s); the others: a "
    "question of 10 to 60 ids and an answer, log-normal around 400 ids with sigma 0.9, at most 3 000"
)


def conversation(number: int) -> tuple[Message, ...]:
    """Conversation `number`, always the same one; LENGTHS says how long they are."""
    rng = np.random.default_rng(number)
    question = _text(Role.USER, rng, int(rng.integers(10, 61)))
    if number % 4 == 3:
        ids = 400 * np.exp(0.9 * rng.standard_normal())
        return question, _text(Role.ASSISTANT, rng, int(np.clip(ids, 10, 3000)))
    frames = 500 if number % 3 else int(rng.integers(100, 501))
    codes = rng.integers(0, VOCABULARY.codebook_size, (frames, VOCABULARY.num_codebooks), np.int32)
    return question, Message(Role.ASSISTANT, Modality.AUDIO, codes)


def write_dataset(folder: pathlib.Path, records: int, shard_size: int) -> DatasetInfo:
    """Conversations 0 to `records` - 1 as the dataset `folder`."""
    work = PartialDataset(folder.with_name(folder.name + ".partial"))
    num_shards = -(-records // shard_size)
    work.begin({"source": "bench", "tokenizer": "", "codec": "", "shard_size": shard_size}, num_shards)
    for shard in range(num_shards):
        numbers = range(shard * shard_size, min((shard + 1) * shard_size, records))
        work.write_shard(shard, "", map(_stored, numbers))
    tally = deduplicate(work, "duplicate-caption", Filters())
    write_description(work, tally, VOCABULARY, {"sample_rate": 16_000, "frame_rate": 50.0})
    work.publish(folder)
    return open_dataset(folder)


def stretch(info: DatasetInfo, folder: pathlib.Path, records: int) -> DatasetInfo:
    """A dataset of that many records (rounded up to whole shards) that takes no room for them.

    Its shards are links to those of `info`, over and over; index and lengths are written in full.
    """
    folder.mkdir()
    content = json.loads((info.directory / "dataset.json").read_text())
    copies = -(-records // info.records)
    content["counts"]["records"] *= copies
    content["counts"]["positions"] *= copies
    shards = [(number, shard) for number in range(copies) for shard in content["shards"]]
    content["shards"] = [shard | {"name": f"{number}-{shard['name']}"} for number, shard in shards]
    for (_, shard), named in zip(shards, content["shards"], strict=True):
        os.symlink(info.directory / shard["name"], folder / named["name"])
    lengths = np.load(info.directory / length_files.LENGTHS)
    stretched = np.lib.format.open_memmap(folder / length_files.LENGTHS, "w+", lengths.dtype, (copies * len(lengths),))
    for number in range(copies):
        stretched[number * len(lengths) : (number + 1) * len(lengths)] = lengths
    stretched.flush()
    for name in (length_files.CLIPS, length_files.CLIP_ENDS):
        (folder / name).write_bytes((info.directory / name).read_bytes())
    (folder / "dataset.json").write_text(json.dumps(content))
    return open_dataset(folder)


def _stored(number: int) -> Stored:
    messages = conversation(number)
    length = len(build_grid(messages, VOCABULARY).tokens)
    record = Record(str(number), "bench", messages, caption="", scene=None, length=length)
    data = to_bytes(record, VOCABULARY.num_codebooks)
    return Stored(data, index=number, length=length, samples=0, text_tokens=0, clips=[], hash=None)


def _text(role: Role, rng: np.random.Generator, ids: int) -> Message:
    return Message(role, Modality.TEXT, rng.integers(0, VOCABULARY.text_size, ids, np.int32))
