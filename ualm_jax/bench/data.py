"""How fast training data is loaded from disk, beside the reference's way and a training step; in how much memory."""

import argparse
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from ualm_jax.bench.loading_memory import watch
from ualm_jax.bench.made_data import LENGTHS, VOCABULARY, conversation, stretch, write_dataset
from ualm_jax.bench.program import compile_program
from ualm_jax.bench.result import Bars, BenchResult, Column, Row, number, text
from ualm_jax.bench.sizes import SizedModel, model_config
from ualm_jax.bench.timing import Timing, time_in_turn
from ualm_jax.bench.workload import open_mesh, packed_batch
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import Loader, make_loader
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.next_token import next_token
from ualm_jax.train.optimizer import OptimizerConfig, make_optimizer
from ualm_jax.train.step import init_state, make_train_step

SEQ_LEN = 4096
_BATCH = 8  # rows
_SHARD = 1024  # records
_READY = 40  # rows that may lie ready when a side's turn begins, and are not counted


def run(args: argparse.Namespace) -> BenchResult:
    """A row for every loader, for the training step, and for every look at memory.

    Loaders take turns in this process, and the workers of the others rest. Memory is looked at in other processes.
    """
    config = model_config(args)
    mesh = open_mesh(args, config, args.step_rows)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        made = write_dataset(folder / "made", args.records, _SHARD)
        rows = _compare(folder, args)
        rows.append(_step(args, config, mesh))
        first = rows[0]["rows_per_second"]["median"]
        for row in rows:
            row["ratio"] = first / row["rows_per_second"]["median"]
        many = write_dataset(folder / "many", args.records, _SHARD // 8)
        huge = stretch(made, folder / "huge", args.index)
        for info, read in ((made, args.read), (many, args.read), (huge, args.read // 10)):
            work = f"{read:,} records read from {info.records:,} in {len(info.shards):,} shards"
            rows.append({"work": work} | watch(_config(info.directory, args.workers), VOCABULARY, read))
    rates = {row["work"]: row["rows_per_second"]["median"] for row in rows if "rows_per_second" in row}
    return BenchResult(
        title=f"loading rows of [{SEQ_LEN}, {VOCABULARY.num_streams}] from {args.records:,} records on disk",
        columns=(
            text("work", "work"),
            Column("rows/s", _rate),
            number("ratio", "ours is faster by", ",.2f"),
            number("filled", "filled", ".1%"),
            number("seconds", "opened in s", ",.2f"),
            number("opened_bytes", "opening takes MB", ",.0f", 1e-6),
            number("grown_bytes", "reading adds MB", "+,.1f", 1e-6),
            number("resident_bytes", "resident MB", ",.0f", 1e-6),
            number("files", "open files"),
        ),
        rows=rows,
        notes=(
            LENGTHS,
            f"rows/s: positions that are not padding, divided by {SEQ_LEN} and by seconds; median (min to max) of "
            f"{args.steps} rounds of {args.rows} rows. The files lie in the page cache, for all sides",
            "reference: tar files, byte offsets, PyTorch's DataLoader, packed in advance; workers hand out waveforms "
            "(wav, flac) that its codec has yet to encode, in the training step; codes in its tars are a gift, it has "
            "no such thing. bench/reference_loading.py says what else is given to it",
            "opening takes: resident memory, the lengths' mapped file included. Reading adds: a process's own memory, "
            "between a tenth of the records and all. Of whichever of the loader's processes has most",
        ),
        bars=(Bars("rows per second", rates),),
    )


def _compare(folder: pathlib.Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rates of our loader, with workers and without, and of the reference's design."""
    loaders = {
        name: make_loader(_config(folder / "made", workers), VOCABULARY)
        for name, workers in {f"ours, {args.workers} workers": args.workers, "ours, no workers": 0}.items()
    }
    sides = {name: _ours(loader) for name, loader in loaders.items()}
    if args.against == "torch":
        from ualm_jax.bench import reference_loading

        conversations = [conversation(number) for number in range(args.records)]
        for kind in reference_loading.KINDS:
            index = reference_loading.write_tars(folder, kind, conversations, VOCABULARY, per_tar=_SHARD)
            sides[f"reference, {kind}, {args.workers} workers"] = _theirs(
                reference_loading.batches(
                    index,
                    kind,
                    VOCABULARY,
                    batch_rows=SEQ_LEN,
                    num_workers=args.workers,
                    count=2 * (args.steps + 1) * (args.rows + _READY),
                )
            )
    rows = rates_in_turn(sides, args.rows, args.steps)
    for loader in loaders.values():
        loader.close()
    return rows


def rates_in_turn(sides: Mapping[str, Iterator[tuple[int, int]]], rows: int, rounds: int) -> list[dict[str, Any]]:
    """Rows per second and filled share of each side, an iterator over (positions filled, positions) of its batches."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    filled, total = dict.fromkeys(sides, 0), dict.fromkeys(sides, 0)
    for counted in range(rounds + 1):
        for name, side in sides.items():
            _take(side, _READY * SEQ_LEN)
            start = time.perf_counter()
            used, positions = _take(side, rows * SEQ_LEN)
            passed = time.perf_counter() - start
            time.sleep(0.5)  # until its workers have filled their queues, and rest
            if counted:  # the first round warms up
                seconds[name].append(passed * rows * SEQ_LEN / used)
                filled[name] += used
                total[name] += positions
    return [
        {
            "work": name,
            "rows_per_second": _rates(Timing(tuple(seconds[name])), rows),
            "filled": filled[name] / total[name],
        }
        for name in sides
    ]


def _take(side: Iterator[tuple[int, int]], least: int) -> tuple[int, int]:
    """Batches until `least` positions are filled."""
    used = positions = 0
    while used < least:
        more = next(side)
        used, positions = used + more[0], positions + more[1]
    return used, positions


def _ours(loader: Loader) -> Iterator[tuple[int, int]]:
    for batch, _ in loader:
        yield int((batch.segment_ids > 0).sum()), batch.segment_ids.size


def _theirs(batches: Iterator[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """Rows end where their conversations do, but a step of static shape would pad them."""
    for batch in batches:
        yield batch["seqs"].shape[1], SEQ_LEN


def _step(args: argparse.Namespace, config: SizedModel, mesh: Mesh) -> dict[str, Any]:
    """How many rows a training step takes in a second."""
    with jax.set_mesh(mesh):
        batch = shard_batch(packed_batch(config, args.step_rows, SEQ_LEN, documents=8), mesh, microbatches=1)
        optimizer = make_optimizer(OptimizerConfig())
        state = init_state(lambda: UALM(*config, nnx.Rngs(0)), optimizer)
        program = compile_program(make_train_step(abstract_model(*config)[0], next_token, optimizer), state, batch)

        def step() -> None:
            nonlocal state
            state, metrics = program.call(state, batch)
            jax.block_until_ready(metrics)

        timing = time_in_turn({"step": step}, repeats=3)["step"]
    work = f"training step, {args.size} ({config.architecture.num_params() / 1e6:,.1f} M parameters), {args.dtype}"
    return {"work": work, "rows_per_second": _rates(timing, args.step_rows), "filled": 1.0}


def _config(directory: pathlib.Path, workers: int) -> DataConfig:
    return DataConfig(directory=str(directory), seq_len=SEQ_LEN, batch_size=_BATCH, num_workers=workers)


def _rates(timing: Timing, rows: int) -> dict[str, float | int]:
    seconds = timing.to_mapping()
    low, high = rows / seconds["max"], rows / seconds["min"]
    return {"median": rows / seconds["median"], "min": low, "max": high, "runs": seconds["runs"]}


def _rate(row: Row) -> str:
    if "rows_per_second" not in row:
        return ""
    rates = row["rows_per_second"]
    digits = 0 if rates["median"] >= 10 else 2
    return "{:,.{d}f} ({:,.{d}f} to {:,.{d}f})".format(*(rates[name] for name in ("median", "min", "max")), d=digits)
