"""What a model says of the records of a run's datasets, in the rows in which the run will first meet them.

The same rows of the same shape on the same mesh give the same numbers to the last bit: a preference run begins with
margins of exactly 0.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float32, Int32, Int64

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.data.dataset.folder import DatasetInfo
from ualm_jax.data.dataset.lengths import Lengths
from ualm_jax.data.dataset.reference import DESCRIPTION, check_key, column_files, open_columns
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader, record_ids
from ualm_jax.data.loading.sequences import segments_of_row
from ualm_jax.errors import UserError
from ualm_jax.models.config import LAYER_PRODUCTS
from ualm_jax.models.log_probabilities import Sequences, sequences, targets
from ualm_jax.models.ualm import UALM
from ualm_jax.outputs import check_new_folder, lock
from ualm_jax.parallel.processes import from_all, meet
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.workdir import Parts
from ualm_jax.weights.fingerprints import fingerprints, model_fingerprint

log = logging.getLogger(__name__)

_LAYOUT = 1  # of token grids, delay pattern and loss weights; to be raised when one of them changes
SAVE_SECONDS = 20.0  # between saves of what is scored


class Reading(NamedTuple):
    """How datasets are read: as by a run with this `data`, whose own datasets and dropout do not matter."""

    data: DataConfig
    vocabulary: Vocabulary
    front_end: MelFrontEnd | None


def reference_key(model: UALM, parts: Parts) -> dict[str, str]:
    """What decides the log-probabilities of a dataset, by name. model: with its encoder. A mesh must be set."""
    products = model.execution.layer_products
    return {
        "weights": model_fingerprint(model),
        **fingerprints(parts),
        "layout": f"{_LAYOUT} {model.architecture.vocabulary}",
        "compute_dtype": model.execution.compute_dtype,
        "audio input": str(None if model.encoder is None else model.encoder.front_end),
        # Not where it is the default: columns of before know no such name.
        **({} if products == LAYER_PRODUCTS[0] else {"layer_products": products}),
    }


def write_columns(
    infos: Sequence[DatasetInfo],
    reading: Reading,
    key: dict[str, str],
    score: Callable[[Batch, np.ndarray], tuple[np.ndarray, Sequences]],
    out: pathlib.Path,
) -> None:
    """Writes the columns of these datasets to the folder `out` (data/dataset/reference.py).

    score: (this process's rows, owners [B, N] of their segments) to owners and `Sequences` of all processes' rows
    (`rows_everywhere`). All processes of a run call this. Called again after a kill it goes on, and the result is the
    same. Raises UserError where `out` holds something else, and where the model finds no finite number for a record.
    """
    streams = reading.vocabulary.num_streams
    if (out / DESCRIPTION).is_file():
        check_key(out, key)
        for info in infos:
            open_columns(out, info, streams)
        log.info("%s says all that was asked for already", out)
        return
    partial = check_new_folder(out).with_name(out.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    first = jax.process_index() == 0
    with lock(partial) if first else contextlib.nullcontext():
        if (partial / DESCRIPTION).is_file():
            check_key(partial, key)
        meet("score in the folder")
        if first:
            _write(partial / DESCRIPTION, {"key": key})
        for info in infos:
            _write_dataset(info, reading, score, partial)
        if first:
            for left in (*partial.glob("*.progress.json"), partial / "lock"):
                left.unlink()
            if out.is_dir():
                out.rmdir()
            os.replace(partial, out)


def _write_dataset(info: DatasetInfo, reading: Reading, score: Any, partial: pathlib.Path) -> None:
    data, vocabulary, front_end = reading
    data = dataclasses.replace(data, directory=str(info.directory), sources=(), cfg_dropout=0.0)
    number = segments_of_row(data, [info], front_end)
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    loader = make_loader(data, vocabulary, front_end, **processes)
    progress = partial / f"{info.key}.progress.json"
    shape = (info.records, 2 if info.pairs else 1, vocabulary.num_streams)
    try:
        begun = progress.is_file()
        if begun:
            loader.set_state(json.loads(progress.read_text()))
        columns = [_column(path, shape, begun) for path in column_files(partial, info)]
        meet("fill the columns")
        missing = np.isnan(columns[0]).any(axis=(1, 2))
        missing &= ~Lengths(info.directory, front_end).too_long(data.seq_len, data.audio_slots)
        saved = time.monotonic()
        while missing.any():
            batch, records = next(loader)
            owners, found = score(batch, _owners(batch, records, number))
            for owner, *values in _firsts(owners, found, shape[1]):
                if missing[owner]:
                    if not np.isfinite(values[0]).all():
                        raise UserError(
                            f"{info.directory}: the model finds no finite log-probability for record {owner} "
                            f"({', '.join(record_ids(data, np.array([owner])))}); look at it, and at the weights"
                        )
                    missing[owner] = False
                    for column, value in zip(columns, values, strict=True):
                        column[owner] = value
            if jax.process_index() == 0 and (time.monotonic() - saved > SAVE_SECONDS or not missing.any()):
                for column in columns:
                    column.flush()
                _write(progress, loader.get_state())
                log.info("%s: %d of %d records scored", info.directory, info.records - missing.sum(), info.records)
                saved = time.monotonic()
    finally:
        loader.close()


def _column(path: pathlib.Path, shape: tuple[int, ...], begun: bool) -> Float32[np.ndarray, "R C S"]:
    """The columns as process 0 writes them to a file; the other processes hold theirs in memory."""
    if jax.process_index() > 0:
        return np.array(np.load(path)) if begun else np.full(shape, np.nan, np.float32)
    if not begun:
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        file[:] = np.nan
        return file
    return np.lib.format.open_memmap(path, mode="r+")


def _owners(batch: Batch, records: Int64[np.ndarray, "B T"], number: int) -> Int32[np.ndarray, "B N"]:
    """Which record each segment of a row is of, -1 for none."""
    owners = np.full((len(records), number), -1, np.int32)
    for row, (segments, where) in enumerate(zip(batch.segment_ids, records, strict=True)):
        starts = np.flatnonzero((np.diff(segments, prepend=0) != 0) & (segments > 0))
        owners[row, : len(starts)] = where[starts]
    return owners


def _firsts(owners: np.ndarray, found: Sequences, conversations: int) -> Iterator[tuple]:
    """(record, totals [C, S], counts [C, S]) of what stands in rows, in their order."""
    by_record = [x.reshape(len(owners), -1, conversations, x.shape[-1]) for x in (found.total, found.count)]
    for row, place in np.argwhere(owners[:, ::conversations] >= 0):
        yield owners[row, place * conversations], *(x[row, place] for x in by_record)


def rows_everywhere(
    score: Callable[[Batch, int], Sequences], mesh: Mesh, microbatches: int, batch: Batch, owners: np.ndarray
) -> tuple[np.ndarray, Sequences]:
    """The rows of all processes, in one order that all agree on.

    score: (batch [A, B, ...] on the mesh, N) to `Sequences` [A, B, N, S].
    """
    placed, of_rows = shard_batch((batch, owners), mesh, microbatches)
    found = (of_rows, score(placed, owners.shape[1]))
    if jax.process_count() > 1:
        found = from_all("exchange log-probabilities", found, tiled=True)
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), found)


def _write(path: pathlib.Path, content: Any) -> None:
    beside = path.with_name(f".{path.name}.unfinished")
    beside.write_text(json.dumps(content) + "\n")
    os.replace(beside, path)


@functools.partial(jax.jit, static_argnums=(0, 4))
def score_rows(
    structure: nnx.GraphDef, params: nnx.State, constants: nnx.State, batch: Batch, number: int
) -> Sequences:
    """`Sequences` [A, B, number, S] of microbatches [A, B, ...]. The model is `structure` merged with the others."""

    def one(microbatch: Batch) -> Sequences:
        return sequences(microbatch, targets(nnx.merge(structure, params, constants), microbatch), number)

    if len(batch.tokens) == 1:  # as in the training step, so that the same numbers come out
        return jax.tree.map(lambda x: x[None], one(jax.tree.map(lambda x: x[0], batch)))
    return jax.lax.map(one, batch)
