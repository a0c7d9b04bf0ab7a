"""How fast a training step is: the whole of it, as `ualm train` runs it, on packed rows that stay the same."""

import argparse
import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ualm_jax.bench import machine
from ualm_jax.bench.program import compile_program, peak_memory
from ualm_jax.bench.result import Bars, BenchResult, number, seconds, text
from ualm_jax.bench.sizes import SizedModel, model_config
from ualm_jax.bench.timing import time_in_turn
from ualm_jax.bench.workload import open_mesh, packed_batch
from ualm_jax.errors import UserError
from ualm_jax.models import flops
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.tokens.types import Batch
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.next_token import next_token
from ualm_jax.train.optimizer import OptimizerConfig, make_optimizer
from ualm_jax.train.step import init_state, make_train_step

_OPTIMIZER = OptimizerConfig(warmup_steps=0)  # so that the very first step moves the weights
TOLERANCE = {"float32": 1e-3, "bfloat16": 2.0**-8}
"""Of losses, relatively. bfloat16: half the distance of two neighbours, what rounding does to a single number."""


def run(args: argparse.Namespace) -> BenchResult:
    """One row per side. Raises ValueError where torch, from the same weights, has another loss or gradient."""
    if args.against == "torch" and args.params != "float32":
        raise UserError(f"--against torch compares parameters in float32; leave --params {args.params} out.")
    if args.against == "torch" and args.products == "fp8":
        raise UserError("--against torch has no products of 8 bits to compare with; leave --products fp8 out.")
    fp8 = args.products == "fp8"
    how = dict(remat=args.remat, layer_products=args.products, unroll_layers=args.unroll)
    config = model_config(args, param_dtype=args.params, **how)
    mesh = open_mesh(args, config, args.rows)
    batch = packed_batch(config, args.rows, args.length, args.documents)
    theirs, more = None, ()
    with jax.set_mesh(mesh):
        ours = _Ours(config, mesh, batch)
        if args.against == "torch":
            from ualm_jax.bench import reference_torch

            more = (reference_torch.prepare(),)
            params = jax.device_get(ours.params())
            theirs = reference_torch.Training(config, params, batch, _OPTIMIZER, packed=args.documents > 1)
            for _ in range(3):  # the first compares weights, the second and third the optimiser
                (loss, norm), (their_loss, their_norm) = ours.step(), theirs.step()
                check_same("loss", loss, their_loss, TOLERANCE[args.dtype])
                check_same("gradient norm", norm, their_norm, tolerance=1e-2)
        timings = time_in_turn(
            {"ours": ours.step} | ({"torch": theirs.step} if theirs is not None else {}), args.steps, warmup=2
        )
    if theirs is not None:
        more += theirs.parts.notes()
    memory = {"ours": peak_memory(ours.program), "torch": theirs and reference_torch.peak_memory()}

    # Queries see the keys of their own document: its positions up to their own.
    attended = float(np.sum(batch.positions + 1, dtype=np.float64))
    work = flops.packed_step(config.architecture, float(args.rows * args.length), attended)
    floor, peak, notes = machine.compute_floor(args.dtype, mesh.size)
    rows: list[dict[str, Any]] = []
    for side, timing in timings.items():
        rows.append(
            {
                "side": side,
                "seconds": timing.to_mapping(),
                "positions_per_second": args.rows * args.length / timing.median,
                "flops_per_second": work / timing.median,
                "of_floor": work / floor / timing.median,
                "mfu": work / peak / timing.median,
                "memory_bytes": memory[side],
            }
        )
    rows[0]["compile_seconds"] = ours.program.seconds
    if theirs is not None:
        rows[1]["ratio"] = timings["torch"].median / timings["ours"].median
    shape = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    return BenchResult(
        title=f"training step, {args.size} ({config.architecture.num_params() / 1e6:,.1f} M parameters), "
        f"{args.rows} rows x {args.length}, {args.documents} documents each, "
        f"{args.dtype}{', fp8 products' * fp8}, parameters {args.params}, remat {args.remat}"
        f"{', layers without a loop' * args.unroll}, mesh {shape}",
        columns=(
            text("side", "side"),
            seconds("seconds", "step"),
            number("positions_per_second", "positions/s"),
            number("flops_per_second", "GFLOP/s", ",.1f", 1e-9),
            number("of_floor", "of matmul", ".1%"),
            number("mfu", "MFU", ".1%"),
            number("memory_bytes", "GiB", ".2f", 2**-30),
            number("compile_seconds", "compile s", ".1f"),
            number("ratio", "ours is faster by", ".2f"),
        ),
        rows=rows,
        notes=(
            f"a position holds {config.architecture.vocabulary.num_streams} tokens, one of each stream",
            flops.FORMULA,
            f"floor: {work / 1e9:,.1f} GFLOP a step at the measured matmul, {1e3 * work / floor:.1f} ms",
            *(["the measured matmul and the peaks are of bfloat16, which products of 8 bits may exceed"] * fp8),
            *notes,
            *more,
        ),
        bars=(
            Bars("positions per second", {row["side"]: row["positions_per_second"] for row in rows}),
            Bars("percent of the measured matmul", {row["side"]: 100 * row["of_floor"] for row in rows}),
        ),
        again=ours.step,
    )


def check_same(what: str, ours: float, theirs: float, tolerance: float = 1e-3) -> None:
    """Raises ValueError where the two differ by more than `tolerance`, relatively."""
    if not abs(ours - theirs) <= tolerance * abs(theirs):
        raise ValueError(f"the two sides do not do the same work: {what} {ours} here, {theirs} there")


class _Ours:
    """The step of `ualm train`, compiled, and the state it moves."""

    def __init__(self, config: SizedModel, mesh: Mesh, batch: Batch):
        optimizer = make_optimizer(dataclasses.replace(_OPTIMIZER, state_dtype=config.execution.param_dtype))
        self._state = init_state(lambda: UALM(*config, nnx.Rngs(0)), optimizer)
        self._batch = shard_batch(batch, mesh, microbatches=1)
        self.program = compile_program(
            make_train_step(abstract_model(*config)[0], next_token, optimizer), self._state, self._batch
        )

    def params(self) -> nnx.State:
        return self._state.params

    def step(self) -> tuple[float, float]:
        """Loss and norm of its gradient before it is clipped."""
        self._state, metrics = jax.block_until_ready(self.program.call(self._state, self._batch))
        return float(metrics["loss"]), float(metrics["grad_norm"])
