"""From a prepared dataset to packed batches. What batch n holds depends on the seed and n only.

Grain: records -> shuffled anew each epoch, endlessly -> token grids -> this process's share -> packed rows ->
batches -> prefetched. Worker processes make token grids and nothing else, so that their number changes nothing.
"""

import dataclasses
import functools
import os

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from ualm_jax.data.dataset import DatasetInfo, open_dataset
from ualm_jax.data.records import Record, from_bytes
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import drop_condition
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read, and how it is laid out in batches.

    directory: a dataset made by `data.prepare`.
    seq_len: rows T of a batch entry. batch_size: entries B of a batch, over all processes.
    seed: of order, dropout and packing.
    cfg_dropout: share of conversations whose condition is dropped (classifier-free guidance).
    packing_bins: entries that are filled at the same time; more leave less padding.
    num_workers: processes that make token grids, 0 for a thread. prefetch: batches made ahead.
    """

    directory: str
    seq_len: int
    batch_size: int
    seed: int = 0
    cfg_dropout: float = 0.05
    packing_bins: int = 64
    num_workers: int = 0
    prefetch: int = 2

    def __post_init__(self):
        least = {"seq_len": 1, "batch_size": 1, "seed": 0, "packing_bins": 1, "num_workers": 0, "prefetch": 0}
        for field, minimum in least.items():
            if getattr(self, field) < minimum:
                raise UserError(f"data.{field} must be at least {minimum}, got {getattr(self, field)}")
        if self.seed >= 2**32:
            raise UserError(f"data.seed must be below 2**32, got {self.seed}")
        if not 0 <= self.cfg_dropout <= 1:
            raise UserError(f"data.cfg_dropout must lie in [0, 1], got {self.cfg_dropout}")


def make_loader(
    config: DataConfig, vocabulary: Vocabulary, *, process_index: int = 0, process_count: int = 1
) -> grain.DatasetIterator:
    """An endless iterator over (Batch of this process's share, Int[np.ndarray, "B T"]).

    The second array says which record of the dataset a row comes from, -1 for padding; see `record_ids`.
    `get_state`/`set_state` (and `grain.checkpoint`) continue exactly, with the same processes and num_workers.
    Raises UserError where the dataset does not fit the config or the vocabulary.
    """
    info = open_dataset(config.directory)
    _check(info, config, vocabulary, process_count)
    to_grid = functools.partial(_to_grid, vocabulary=vocabulary, cfg_dropout=config.cfg_dropout)
    number = functools.partial(_number, num_records=info.records)
    # Dropout comes before the slice: it goes by the position in the stream of all processes.
    grids = open_records(info).map_with_index(number).seed(config.seed).shuffle().repeat().random_map(to_grid)
    share = grids[process_index::process_count]
    # One thread: parsing holds Python's lock, more of them only wait for it.
    rows = share.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=16))
    if config.num_workers:
        _parse_flags()
        # A record is a few kilobytes: cheaper through the pipe than in a shared memory segment for each array.
        options = grain.experimental.DatasetOptions(min_shm_size=1 << 20)
        rows = grain.experimental.WithOptionsIterDataset(rows, options)
        rows = rows.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.num_workers))
    packed = grain.experimental.FirstFitPackIterDataset(
        rows,
        length_struct=dict.fromkeys(("tokens", "loss_weights", "record"), config.seq_len),
        padding_struct={"tokens": 0, "loss_weights": 0, "record": -1},
        num_packing_bins=config.packing_bins,
        seed=config.seed,
    )
    batches = packed.batch(config.batch_size // process_count, drop_remainder=True).map(_to_batch)
    return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=config.prefetch))


def open_records(info: DatasetInfo) -> grain.MapDataset:
    """The records of a dataset (`records.Record`) in the order of its source, by index.

    Raises UserError, now or on access, where a shard is damaged.
    """
    parse = functools.partial(from_bytes, num_codebooks=info.vocabulary.num_codebooks)
    return grain.MapDataset.source(_Shards(info)).map(parse)


class _Shards:
    """The shards' records as bytes, for grain; array_record verifies the checksum of what it reads."""

    def __init__(self, info: DatasetInfo):
        self._directory = info.directory
        try:
            self._source = grain.sources.ArrayRecordDataSource([os.fspath(shard) for shard in info.shards])
        except RuntimeError as error:
            raise self._damaged(error) from error
        if len(self) != info.records:
            raise self._damaged(f"{len(self)} records in all, expected {info.records}")

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> bytes:
        try:
            return self._source[index]
        except RuntimeError as error:
            raise self._damaged(error) from error

    def _damaged(self, reason: RuntimeError | str) -> UserError:
        return UserError(
            f"{self._directory}: a shard is damaged ({str(reason) or 'truncated'}); "
            "compare them with the sha256 sums in dataset.json, and copy or prepare the dataset again"
        )


def record_ids(config: DataConfig, records: Int[np.ndarray, "..."]) -> list[str]:
    """Which records a batch was made of, as "source/id", in the order of their first row."""
    stored = open_records(open_dataset(config.directory))
    found = (stored[index] for index in dict.fromkeys(records[records >= 0].tolist()))
    return [f"{record.source}/{record.id}" for record in found]


def fill_fraction(batch: Batch) -> float:
    """Share of a batch's positions that is not padding."""
    return float((batch.segment_ids > 0).mean())


def _check(info: DatasetInfo, config: DataConfig, vocabulary: Vocabulary, process_count: int) -> None:
    made = info.vocabulary
    for field in ("num_codebooks", "codebook_size"):
        if getattr(made, field) != getattr(vocabulary, field):
            raise UserError(
                f"{info.directory}: was made with {field} {getattr(made, field)}, "
                f"the model's vocabulary has {getattr(vocabulary, field)}; prepare it with the model's codec"
            )
    if made.text_size > vocabulary.text_size:
        raise UserError(
            f"{info.directory}: its tokenizer has {made.text_size} ids, the model's vocabulary only "
            f"{vocabulary.text_size}; prepare it with the model's tokenizer"
        )
    if info.longest > config.seq_len:
        raise UserError(
            f"{info.directory}: its longest conversation has {info.longest} rows, data.seq_len is "
            f"{config.seq_len}; raise data.seq_len, or prepare the dataset from shorter sounds"
        )
    if config.batch_size % process_count:
        raise UserError(f"data.batch_size {config.batch_size} can not be divided among {process_count} processes")


def _number(index: int, record: Record, *, num_records: int) -> tuple[int, Record]:
    return index % num_records, record  # grain counts on through the epochs


def _to_grid(
    numbered: tuple[int, Record], rng: np.random.Generator, *, vocabulary: Vocabulary, cfg_dropout: float
) -> dict[str, np.ndarray]:
    index, record = numbered
    grid = drop_condition(record.messages, vocabulary, probability=cfg_dropout, rng=rng)
    if grid.clips:
        raise UserError(f"record {record.id} of {record.source}: holds continuous audio without its features")
    return {
        "tokens": grid.tokens,
        "loss_weights": grid.loss_weights,
        "record": np.full(len(grid.tokens), index, np.int32),
    }


def _to_batch(packed: dict[str, np.ndarray]) -> tuple[Batch, np.ndarray]:
    # Grain numbers segments and positions for each feature; they all agree.
    batch = Batch(
        tokens=packed["tokens"],
        loss_weights=packed["loss_weights"],
        segment_ids=packed["tokens_segment_ids"],
        positions=packed["tokens_positions"],
    )
    return batch, packed["record"]


def _parse_flags() -> None:
    """Grain's workers read absl flags, which only `absl.app.run` parses."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
