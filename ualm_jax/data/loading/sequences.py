"""One packed batch row from its plan: read, laid out, heard."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Float32, Int32, Int64

from ualm_jax.audio.mel import MEL_BINS, MelFrontEnd, MelWindow, feature_rows, stack_windows
from ualm_jax.data.dataset.audio_input import mel_windows, with_frames
from ualm_jax.data.dataset.folder import DatasetInfo, open_records
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.packing import Item
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import drop_condition
from ualm_jax.tokens.vocabulary import Vocabulary


class PackedRow(NamedTuple):
    """One entry of a Batch, and which record (numbered through all sources) stands where, -1 for padding."""

    tokens: Int32[np.ndarray, "T S"]
    loss_weights: Float32[np.ndarray, "T S"]
    segment_ids: Int32[np.ndarray, "T"]
    positions: Int32[np.ndarray, "T"]
    mels: Float32[np.ndarray, "W F M"] | None
    mel_frames: Int32[np.ndarray, "W"] | None
    feature_index: Int32[np.ndarray, "T"] | None
    records: Int64[np.ndarray, "T"]


class RowBuilder:
    """Makes rows, in any thread or process. What a row holds depends on its items and the configuration alone."""

    def __init__(
        self,
        config: DataConfig,
        vocabulary: Vocabulary,
        infos: Sequence[DatasetInfo],
        front_end: MelFrontEnd | None = None,
    ):
        self._front_end = front_end
        self._config, self._vocabulary, self._infos = config, vocabulary, tuple(infos)
        counts = [info.records for info in infos]
        self._first = np.concatenate([[0], np.cumsum(counts)]).tolist()

    @functools.cached_property
    def _records(self) -> list[grain.MapDataset]:
        return [open_records(info) for info in self._infos]

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_records"}  # open files

    def __call__(self, items: Sequence[Item]) -> PackedRow:
        config, streams = self._config, self._vocabulary.num_streams
        listens = self._front_end is not None
        frames = self._front_end.batch_frames if listens else 0
        row = PackedRow(
            tokens=np.zeros((config.seq_len, streams), np.int32),
            loss_weights=np.zeros((config.seq_len, streams), np.float32),
            segment_ids=np.zeros(config.seq_len, np.int32),
            positions=np.zeros(config.seq_len, np.int32),
            mels=np.zeros((config.audio_slots, MEL_BINS, frames), np.float32) if listens else None,
            mel_frames=np.zeros(config.audio_slots, np.int32) if listens else None,
            feature_index=np.full(config.seq_len, -1, np.int32) if listens else None,
            records=np.full(config.seq_len, -1, np.int64),
        )
        windows: list[MelWindow] = []
        heard: list[np.ndarray] = []
        start = 0
        for segment, item in enumerate(items, start=1):
            record = self._records[item.source][item.index]
            grid = drop_condition(
                with_frames(record.messages, self._front_end),
                self._vocabulary,
                probability=config.cfg_dropout,
                rng=self._rng(item),
            )
            stop = start + len(grid.tokens)
            if stop > config.seq_len:
                raise UserError(
                    f"{self._infos[item.source].directory}: conversation {item.index} (id {record.id}) is longer than "
                    "its lengths.npy says; the dataset is damaged, copy or prepare it again"
                )
            row.tokens[start:stop] = grid.tokens
            row.loss_weights[start:stop] = grid.loss_weights
            row.segment_ids[start:stop] = segment
            row.positions[start:stop] = np.arange(stop - start)
            row.records[start:stop] = self._first[item.source] + item.index
            if grid.clips:  # either all of a conversation's or, its condition dropped, none
                windows += mel_windows(self._front_end, record.clips)
                heard += [start + clip.start + np.arange(clip.length) for clip in grid.clips]
            start = stop
        if windows:
            lengths = [window.frames for window in windows]
            mels, row.mel_frames[: len(windows)] = stack_windows(windows, frames)
            row.mels[: len(windows)] = mels
            row.feature_index[np.concatenate(heard)] = feature_rows(lengths, frames)
        return row

    def _rng(self, item: Item) -> np.random.Generator:
        """Dropout goes by the place in the source's stream, whatever is mixed or packed around it."""
        key = int(self._infos[item.source].key, 16)
        return np.random.default_rng((self._config.seed, key, item.position))
