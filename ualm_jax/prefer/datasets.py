"""Chosen answers as datasets: pairs, and the winners alone as conversations to learn from."""

import dataclasses
import itertools
import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ualm_jax.codecs.base import Codec
from ualm_jax.data.dataset.folder import DatasetInfo, open_dataset
from ualm_jax.data.dataset.pairs import conversations_of, join_pair
from ualm_jax.data.dataset.records import Record, to_bytes
from ualm_jax.data.prepare.deduplicate import deduplicate
from ualm_jax.data.prepare.description import write_description
from ualm_jax.data.prepare.filters import Filters
from ualm_jax.data.prepare.partial import PartialDataset, partial_of
from ualm_jax.data.prepare.reports import Stored
from ualm_jax.data.raw.files import hash_directory
from ualm_jax.prefer.samples import Answered, Sample
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.tokenizer import Tokenizer
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

_SHARD = 4096  # records


@dataclasses.dataclass(frozen=True)
class Writer:
    """Datasets of what a model with this tokenizer and codec has answered. modality: of the answers.

    folders: of "tokenizer" and "codec", which are copied into the dataset. made_from: identifies the samples.
    """

    tokenizer: Tokenizer
    codec: Codec
    vocabulary: Vocabulary
    modality: str
    folders: Mapping[str, pathlib.Path]
    made_from: Mapping[str, Any]

    def pair(self, asked: Answered, number: int, chosen: Sample, rejected: Sample) -> Record:
        messages, pair = join_pair([self._prompt(asked)], [self._answer(chosen)], [self._answer(rejected)])
        scene = {"chosen": _facts(chosen), "rejected": _facts(rejected)}
        return self._record(f"{asked.id}-{number}" if number else asked.id, asked, messages, pair, scene)

    def winner(self, asked: Answered, chosen: Sample) -> Record:
        return self._record(asked.id, asked, (self._prompt(asked), self._answer(chosen)), None, _facts(chosen))

    def write(self, records: Collection[Record], name: str, out: pathlib.Path) -> DatasetInfo:
        """The new dataset `out`. records: are gone through once."""
        work = PartialDataset(partial_of(out))
        made_from = {
            "source": {"name": name, "fingerprint": dict(self.made_from)},
            **{part: hash_directory(folder) for part, folder in self.folders.items()},
        }
        with work.locked():
            shards, left = -(-len(records) // _SHARD), iter(records)
            work.begin(made_from, shards, lambda shard: name)
            for number in range(shards):
                work.write_shard(number, name, self._stored(itertools.islice(left, _SHARD), number * _SHARD))
            tally = deduplicate(work, "duplicate-audio", Filters(drop=()))
            for part, folder in self.folders.items():
                shutil.copytree(folder, work.partial / part, dirs_exist_ok=True)
            codec = {"sample_rate": self.codec.sample_rate, "frame_rate": self.codec.frame_rate}
            write_description(work, tally, self.vocabulary, codec)
            work.publish(out)
        return open_dataset(out)

    def _prompt(self, asked: Answered) -> Message:
        return Message(Role.USER, Modality.TEXT, np.array(self.tokenizer.encode(asked.prompt), np.int32))

    def _answer(self, sample: Sample) -> Message:
        if self.modality == "text":
            return Message(Role.ASSISTANT, Modality.TEXT, sample.content.astype(np.int32))
        return Message(Role.ASSISTANT, Modality.AUDIO, sample.content.astype(np.int32), self.modality)

    def _record(
        self, id: str, asked: Answered, messages: Sequence[Message], pair: tuple[int, int] | None, scene: dict[str, Any]
    ) -> Record:
        record = Record(id, "prefer", tuple(messages), asked.prompt, scene, length=0, pair=pair)
        lengths = [len(build_grid(each.messages, self.vocabulary).tokens) for each in conversations_of(record)]
        return dataclasses.replace(record, length=sum(lengths))

    def _stored(self, records: Iterable[Record], first: int) -> Iterator[Stored]:
        for index, record in enumerate(records, start=first):
            said = [message for one in conversations_of(record) for message in one.messages]
            heard = [message.content for message in said if message.modality == Modality.CLIP]
            frames = sum(len(message.content) for message in said if message.modality == Modality.AUDIO)
            yield Stored(
                data=to_bytes(record, self.vocabulary.num_codebooks),
                index=index,
                length=record.length,
                samples=frames * self.codec.hop,
                text_tokens=sum(len(message.content) for message in said if message.modality == Modality.TEXT),
                clips=heard,
                hash=None,
                pair=record.pair is not None,
                speech=sum(len(message.content) for message in said if message.is_speech) * self.codec.hop,
            )


def _facts(sample: Sample) -> dict[str, Any]:
    return {"seed": sample.seed, "scores": dict(sample.scores)}
