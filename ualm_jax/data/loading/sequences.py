"""One packed batch row from its plan: records are read, laid out as tokens, and their sounds made mel windows."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Float32, Int32, Int64

from ualm_jax.audio.mel import MEL_BINS, MelFrontEnd, MelWindow, feature_indices, stack_windows
from ualm_jax.data.dataset.audio_input import mel_windows, with_frames
from ualm_jax.data.dataset.folder import DatasetInfo, open_records
from ualm_jax.data.dataset.lengths import Lengths
from ualm_jax.data.dataset.pairs import conversations_of
from ualm_jax.data.dataset.records import Record
from ualm_jax.data.dataset.reference import Columns, open_columns
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.packing import Item
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import build_grid, drop_condition
from ualm_jax.tokens.types import TokenGrid
from ualm_jax.tokens.vocabulary import Vocabulary


class PackedRow(NamedTuple):
    """One entry of a Batch, and which record (numbered through all sources) stands where, -1 for padding.

    mels: only the windows W and columns M that hold sound, since rows are handed from process to process.
    """

    tokens: Int32[np.ndarray, "T S"]
    loss_weights: Float32[np.ndarray, "T S"]
    segment_ids: Int32[np.ndarray, "T"]
    positions: Int32[np.ndarray, "T"]
    mels: Float32[np.ndarray, "W F M"] | None
    mel_frames: Int32[np.ndarray, "W"] | None
    feature_index: Int32[np.ndarray, "T"] | None
    reference: Float32[np.ndarray, "P 2 S"] | None
    records: Int64[np.ndarray, "T"]


class RowBuilder:
    """Makes rows, in any thread or process. What a row holds depends on its items and the configuration alone.

    pairs: places for pairs in a row, 0 for conversations. reference: see dataset/reference.py; None for zeros.
    """

    def __init__(
        self,
        config: DataConfig,
        vocabulary: Vocabulary,
        infos: Sequence[DatasetInfo],
        front_end: MelFrontEnd | None = None,
        pairs: int = 0,
        reference: Path | None = None,
    ):
        self._front_end, self._pairs, self._reference = front_end, pairs, reference
        self._mel_frames = 0 if front_end is None else front_end.batch_frames
        self._config, self._vocabulary, self._infos = config, vocabulary, tuple(infos)
        counts = [info.records for info in infos]
        self._first = np.concatenate([[0], np.cumsum(counts)]).tolist()

    @functools.cached_property
    def _records(self) -> list[grain.MapDataset]:
        return [open_records(info) for info in self._infos]

    @functools.cached_property
    def _columns(self) -> list[Columns]:
        return [open_columns(self._reference, info, self._vocabulary.num_streams) for info in self._infos]

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_records", "_columns")}  # files

    def __call__(self, items: Sequence[Item]) -> PackedRow:
        config, streams = self._config, self._vocabulary.num_streams
        listens = self._front_end is not None
        row = PackedRow(
            tokens=np.zeros((config.seq_len, streams), np.int32),
            loss_weights=np.zeros((config.seq_len, streams), np.float32),
            segment_ids=np.zeros(config.seq_len, np.int32),
            positions=np.zeros(config.seq_len, np.int32),
            mels=np.zeros((0, MEL_BINS, 0), np.float32) if listens else None,
            mel_frames=np.zeros(config.audio_slots, np.int32) if listens else None,
            feature_index=np.full(config.seq_len, -1, np.int32) if listens else None,
            reference=np.zeros((self._pairs, 2, streams), np.float32) if self._pairs else None,
            records=np.full(config.seq_len, -1, np.int64),
        )
        windows: list[MelWindow] = []
        heard: list[np.ndarray] = []
        start = segment = 0
        for place, item in enumerate(items):
            record = self._records[item.source][item.index]
            grids = self._grids(record, item)
            for grid, conversation in zip(grids, conversations_of(record), strict=True):
                segment += 1
                stop = start + len(grid.tokens)
                if stop > config.seq_len:
                    raise UserError(
                        f"{self._infos[item.source].directory}: conversation {item.index} (id {record.id}) is longer "
                        "than its lengths.npy says; the dataset is damaged, copy or prepare it again"
                    )
                row.tokens[start:stop] = grid.tokens
                row.loss_weights[start:stop] = self._weighted(grid.loss_weights)
                row.segment_ids[start:stop] = segment
                row.positions[start:stop] = np.arange(stop - start)
                row.records[start:stop] = self._first[item.source] + item.index
                if grid.clips:  # either all of a conversation's or, its condition dropped, none
                    windows += mel_windows(self._front_end, conversation.clips)
                    heard += [start + clip.start + np.arange(clip.length) for clip in grid.clips]
                start = stop
            if self._reference is not None:
                row.reference[place] = self._said(record, item, grids)
        if windows:
            lengths = [window.frames for window in windows]
            mels, row.mel_frames[: len(windows)] = stack_windows(windows, max(each.mel.shape[1] for each in windows))
            row.feature_index[np.concatenate(heard)] = feature_indices(lengths, self._mel_frames)
            return row._replace(mels=mels)
        return row

    def stack_mels(self, rows: Sequence[Float32[np.ndarray, "_ F _"]]) -> Float32[np.ndarray, "B W F M"]:
        """`PackedRow.mels` of a batch's rows, each with all windows W and columns M of a batch."""
        stacked = np.zeros((len(rows), self._config.audio_slots, MEL_BINS, self._mel_frames), np.float32)
        for whole, mels in zip(stacked, rows, strict=True):
            whole[: len(mels), :, : mels.shape[2]] = mels
        return stacked

    def _grids(self, record: Record, item: Item) -> list[TokenGrid]:
        """The grid of a conversation, its condition dropped at random; of a pair both grids, nothing dropped."""
        conversations = [with_frames(each.messages, self._front_end) for each in conversations_of(record)]
        if self._pairs:
            return [build_grid(messages, self._vocabulary) for messages in conversations]
        (messages,) = conversations
        dropout = self._config.cfg_dropout
        return [drop_condition(messages, self._vocabulary, probability=dropout, rng=self._rng(item))]

    def _weighted(self, weights: Float32[np.ndarray, "T S"]) -> Float32[np.ndarray, "T S"]:
        """Loss weights times `stream_weights` at positions of audio, where streams behind the first have weights."""
        if not self._config.stream_weights:
            return weights
        factors = np.array(self._config.stream_weights, np.float32)
        return np.where(weights[:, 1:].any(axis=1, keepdims=True), weights * factors, weights)

    def _said(self, record: Record, item: Item, grids: Sequence[TokenGrid]) -> Float32[np.ndarray, "2 S"]:
        """The log-probabilities of a pair under the reference model, from its columns. Raises UserError for others."""
        columns = self._columns[item.source]
        totals, counts = columns.totals[item.index], columns.counts[item.index]
        learnt = np.array([(grid.loss_weights[1:] != 0).sum(axis=0) for grid in grids])
        if not (np.isfinite(totals).all() and np.array_equal(counts, learnt)):
            raise UserError(
                f"{self._reference}: what it says of conversation {item.index} (id {record.id}) of "
                f"{self._infos[item.source].directory} is of other tokens, or missing; remove it and score again"
            )
        return totals

    def _rng(self, item: Item) -> np.random.Generator:
        """Dropout goes by the place in the source's stream, whatever is mixed or packed around it."""
        key = int(self._infos[item.source].key, 16)
        return np.random.default_rng((self._config.seed, key, item.position))


def segments_of_row(config: DataConfig, infos: Sequence[DatasetInfo], front_end: MelFrontEnd | None) -> int:
    """How many conversations a row holds at most, those of pairs counted one by one."""
    shortest = min(int(Lengths(info.directory, front_end).positions().min()) for info in infos)
    return max(config.seq_len // shortest, 1) * (2 if infos[0].pairs else 1)
