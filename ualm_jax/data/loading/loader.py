"""From prepared datasets to packed batches. What batch n holds depends on configuration, seed and n only.

Lengths -> plan of all rows (packing.py) -> this process's rows, made by workers (sequences.py) -> batches. Since every
process plans all rows, batch n is the same on any number of processes and workers, and so is the saved position.
"""

import itertools
import logging
import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.data.dataset.folder import DatasetInfo, open_dataset, open_records
from ualm_jax.data.dataset.lengths import Lengths
from ualm_jax.data.dataset.reference import open_columns
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.packing import Item, Planner, Supply
from ualm_jax.data.loading.sequences import PackedRow, RowBuilder, segments_of_row
from ualm_jax.errors import UserError
from ualm_jax.parallel.workers import worker_pool
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import Vocabulary

log = logging.getLogger(__name__)

_ATTEMPTS = 3  # at a batch, where worker processes are killed


class SourceProgress(NamedTuple):
    """What the batches so far hold of a source: its share of all tokens, the tokens themselves, and epochs of it."""

    directory: str
    share: float
    tokens: int
    epochs: float


class _Ahead(NamedTuple):
    """A batch in the making, several rows to a task, and the planner's state after it."""

    rows: list[list[Item]]
    tasks: list[Future]
    state: dict[str, Any]


class Loader:
    """An endless iterator over (this process's part of a Batch, Int64 "B T"): see `make_loader`."""

    def __init__(
        self,
        config: DataConfig,
        planner: Planner,
        builder: RowBuilder,
        infos: Sequence[DatasetInfo],
        rows: slice,
    ):
        self._config, self._planner, self._infos = config, planner, infos
        self._rows, self._builder = rows, builder
        self._executor = _make_executor(config.num_workers, builder)
        # Not a method, which would send the builder along with every task.
        self._make = _make_rows if config.num_workers else partial(_make_rows_with, builder)
        # Deep enough that no worker waits until the next batch is asked for.
        self._depth = 1 + max(config.prefetch, math.ceil(2 * config.num_workers / (rows.stop - rows.start)))
        self._ahead: deque[_Ahead] = deque()
        self._state = planner.get_state()

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> tuple[Batch, Int64[np.ndarray, "B T"]]:
        while len(self._ahead) < self._depth:
            self._begin()
        made = self._first_ahead()
        self._begin()
        parts = zip(PackedRow._fields, zip(*made, strict=True), strict=True)
        stack = {"mels": self._builder.stack_mels}
        content = {name: stack.get(name, np.stack)(part) for name, part in parts if part[0] is not None}
        records = content.pop("records")
        self._state = self._ahead.popleft().state  # the last thing: a batch that was not handed out was not read
        return Batch(**content), records

    def get_state(self) -> dict[str, Any]:
        """Where the last batch ended; JSON-able, and the same on all processes."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there, with any number of processes and workers. Raises UserError where a source is gone."""
        for ahead in self._ahead:
            for task in ahead.tasks:
                task.cancel()
        self._ahead.clear()
        self._planner.set_state(state)
        self._state = self._planner.get_state()

    def progress(self) -> list[SourceProgress]:
        """The tokens and epochs of every source in the batches that were handed out."""
        given = self._planner.given(self._state)
        total = max(sum(each.tokens for each in given), 1)
        return [
            SourceProgress(str(info.directory), each.tokens / total, each.tokens, each.conversations / info.records)
            for info, each in zip(self._infos, given, strict=True)
        ]

    def close(self) -> None:
        """Ends the workers."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> None:
        rows = list(itertools.islice(self._planner, self._config.batch_size))[self._rows]
        self._ahead.append(_Ahead(rows, self._submit(rows), self._planner.get_state()))

    def _submit(self, rows: list[list[Item]]) -> list[Future]:
        # As many rows to a task as leave one for each worker: handing a task over takes as long as making a row.
        share = math.ceil(len(rows) / max(self._config.num_workers, 1))
        try:
            return [self._executor.submit(self._make, rows[i : i + share]) for i in range(0, len(rows), share)]
        except BrokenProcessPool as error:  # for `_first_ahead` to find, as where a worker dies later
            broken = Future()
            broken.set_exception(error)
            return [broken]

    def _first_ahead(self) -> list[PackedRow]:
        """The rows of the next batch. Workers that have been killed are replaced, and their work is done again."""
        for _ in range(_ATTEMPTS):
            try:
                return [row for task in self._ahead[0].tasks for row in task.result()]
            except BrokenProcessPool:
                log.warning("A worker process that reads data has been killed, perhaps for lack of memory.")
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = _make_executor(self._config.num_workers, self._builder)
            waiting, self._ahead = self._ahead, deque()
            self._ahead.extend(_Ahead(each.rows, self._submit(each.rows), each.state) for each in waiting)
        raise UserError(
            f"worker processes that read data have been killed {_ATTEMPTS} times in a row, perhaps for lack of memory; "
            "run the same again with a lower data.num_workers"
        )


def make_loader(
    config: DataConfig,
    vocabulary: Vocabulary,
    front_end: MelFrontEnd | None = None,
    *,
    process_index: int = 0,
    process_count: int = 1,
    reference: Path | None = None,
) -> Loader:
    """An endless iterator over (Batch of this process's rows, Int64[np.ndarray, "B T"]).

    front_end: of the audio encoder, None where nothing is heard.
    The second array says which record each position comes from, -1 for padding; see `record_ids`.
    The batches of all processes, concatenated, are the batch that a single process would get.
    Of a pair, both conversations stand in one row. reference: what a model says of them (dataset/reference.py).
    Raises UserError where the datasets do not fit the config, the vocabulary or each other.
    """
    if config.batch_size % process_count:
        raise UserError(f"data.batch_size {config.batch_size} can not be divided among {process_count} processes")
    infos = open_sources(config)
    for info in infos:
        _check(info, vocabulary)
    planner = make_planner(config, infos, front_end)
    pairs = segments_of_row(config, infos, front_end) // 2 if infos[0].pairs else 0
    if reference is not None:
        for info in infos:
            open_columns(reference, info, vocabulary.num_streams)
    share = config.batch_size // process_count
    rows = slice(process_index * share, (process_index + 1) * share)
    return Loader(config, planner, RowBuilder(config, vocabulary, infos, front_end, pairs, reference), infos, rows)


def open_sources(config: DataConfig) -> list[DatasetInfo]:
    """The datasets of a mixture. Raises UserError where two were not made with the same tokenizer and codec."""
    infos = [open_dataset(source.directory) for source in config.all_sources]
    first = infos[0]
    for info in infos[1:]:
        for part in ("tokenizer", "codec"):
            if info.made_from[part] != first.made_from[part]:
                raise UserError(
                    f"{first.directory} and {info.directory}: were made with different {part}s; prepare both with one"
                )
        if info.key in {other.key for other in infos if other is not info}:
            raise UserError(f"{info.directory}: holds the same as another of data.sources; raise its weight instead")
        if (info.pairs > 0) != (first.pairs > 0):
            raise UserError(
                f"{first.directory} and {info.directory}: one holds pairs and the other conversations; a run learns "
                "from one kind"
            )
    return infos


def make_planner(config: DataConfig, infos: Sequence[DatasetInfo], front_end: MelFrontEnd | None = None) -> Planner:
    """The plan of all rows of a mixture. Raises UserError where a conversation fits no row."""
    lengths = [Lengths(info.directory, front_end) for info in infos]
    skips = [_too_long(config, info, known) for info, known in zip(infos, lengths, strict=True)]
    weights = [
        known.total(skip) * source.repeat if source.weight is None else source.weight
        for source, known, skip in zip(config.all_sources, lengths, skips, strict=True)
    ]
    supplies = [
        Supply(info.key, weight / sum(weights), known, name=str(info.directory), skip=skip)
        for info, weight, known, skip in zip(infos, weights, lengths, skips, strict=True)
    ]
    return Planner(
        supplies,
        seed=config.seed,
        seq_len=config.seq_len,
        audio_slots=config.audio_slots,
        bins=config.packing_bins,
    )


def _too_long(config: DataConfig, info: DatasetInfo, lengths: Lengths) -> Bool[np.ndarray, "R"] | None:
    """The conversations to pass over; None where all fit. Raises UserError unless config.skip_long allows it."""
    lengths.check_sums(info.records, info.positions)
    limits = config.seq_len, config.audio_slots
    found = lengths.too_long(*limits)
    count = int(found.sum())
    if count == 0:
        return None
    worst = int(np.argmax(np.where(found, lengths.positions(), 0)))
    why = f"conversation {worst} {lengths.explain(worst, *limits)}"
    if not config.skip_long:
        others = f"; {count} of {info.records} conversations are too long" if count > 1 else ""
        raise UserError(
            f"{info.directory}: {why}, pass over what is too long with data.skip_long=True, or prepare the dataset "
            f"again from what is shorter{others}"
        )
    if count == info.records:
        raise UserError(f"{info.directory}: all of its conversations are too long: {why}")
    log.info("%s: %d of %d conversations are passed over as too long", info.directory, count, info.records)
    return found


def record_ids(config: DataConfig, records: Int64[np.ndarray, "..."]) -> list[str]:
    """Which records a batch was made of, as "source/id", in the order of their first position."""
    infos = open_sources(config)
    ends = np.cumsum([info.records for info in infos])
    stored = [open_records(info) for info in infos]
    found = []
    for number in dict.fromkeys(records[records >= 0].tolist()):
        source = int(np.searchsorted(ends, number, side="right"))
        first = int(ends[source]) - infos[source].records
        found.append(stored[source][number - first])
    return [f"{record.source}/{record.id}" for record in found]


def fill_fraction(batch: Batch) -> float:
    """Share of a batch's positions that is not padding."""
    return float((batch.segment_ids > 0).mean())


def _check(info: DatasetInfo, vocabulary: Vocabulary) -> None:
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


def _make_executor(num_workers: int, builder: RowBuilder) -> Executor:
    if num_workers == 0:
        return ThreadPoolExecutor(1)  # parsing holds Python's lock, more of them would only wait for it
    return worker_pool(num_workers, _start_worker, builder)


_worker_builder: RowBuilder | None = None


def _start_worker(builder: RowBuilder) -> None:
    global _worker_builder
    _worker_builder = builder


def _make_rows(rows: list[list[Item]]) -> list[PackedRow]:
    return _make_rows_with(_worker_builder, rows)


def _make_rows_with(builder: RowBuilder, rows: list[list[Item]]) -> list[PackedRow]:
    return [builder(items) for items in rows]
