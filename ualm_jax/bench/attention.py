"""How fast attention is on packed documents: every backend that this device has, forward, and forward and backward."""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ualm_jax.bench import machine
from ualm_jax.bench.program import compile_program
from ualm_jax.bench.result import Bars, BenchResult, number, seconds, text
from ualm_jax.bench.sizes import model_config
from ualm_jax.bench.timing import time_in_turn
from ualm_jax.bench.workload import open_mesh
from ualm_jax.errors import UserError
from ualm_jax.models.attention import AttentionSpec, attend
from ualm_jax.models.config import ATTENTION
from ualm_jax.parallel.sharding import spec

_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
FORMULA = (
    "useful operations: 2 N H n (n + 1) for each document of n positions, thrice that with the backward pass; what a "
    "backend computes beyond the documents or a second time does not count"
)


def run(args: argparse.Namespace) -> BenchResult:
    """Two rows per backend; a backend that can not run here is a note. `--attention` picks one; auto takes all.

    Raises ValueError where two of them attend differently.
    """
    config = model_config(args)
    mesh = open_mesh(args, config, args.rows)
    B, T, H = args.rows, args.length, config.architecture.decoder.head_dim
    K, G = config.architecture.decoder.num_kv_heads, config.architecture.decoder.queries_per_kv_head
    sizes = np.diff(np.linspace(0, T, args.documents + 1).astype(int))
    segment_ids = np.tile(np.repeat(np.arange(1, args.documents + 1, dtype=np.int32), sizes), (B, 1))
    rng = np.random.default_rng(0)
    host = [rng.standard_normal(shape, np.float32) for shape in ((B, T, K, G, H), (B, T, K, H), (B, T, K, H))]
    names = [name for name in ATTENTION if name != "auto"] if args.attention == "auto" else [args.attention]
    runs, programs, outputs, notes = {}, {}, {}, [FORMULA]
    with jax.set_mesh(mesh):
        arrays = [_place(array.astype(args.dtype), mesh, "kv_heads") for array in host]
        arrays.append(_place(segment_ids, mesh))
        for name in names:
            try:
                forward, both = (compile_program(jax.jit(f), *arrays) for f in _functions(name))
            except UserError as error:
                notes.append(str(error))
                continue
            outputs[name] = np.asarray(forward.call(*arrays), np.float32)
            for work, program in (("forward", forward), ("forward + backward", both)):
                programs[name, work] = program
                runs[name, work] = lambda program=program: jax.block_until_ready(program.call(*arrays))
    if not runs:
        raise UserError(notes[-1])
    if args.against == "torch":
        from ualm_jax.bench import reference_torch, reference_torch_attention

        notes.append(reference_torch.prepare())
        theirs = reference_torch_attention.Attention(host, segment_ids, args.dtype)
        outputs["torch sdpa"] = theirs.result().reshape(B, T, K, G, H)
        runs |= {("torch sdpa", "forward"): theirs.forward, ("torch sdpa", "forward + backward"): theirs.both}
    first, *others = outputs
    for name in others:
        furthest = np.abs(outputs[name] - outputs[first]).max()
        if not furthest <= _TOLERANCE[args.dtype]:
            raise ValueError(f"{name} and {first} attend differently, by {furthest:.1e}")

    timings = time_in_turn({"/".join(key): run for key, run in runs.items()}, args.repeats, warmup=2)
    operations = 2.0 * B * K * G * H * float(np.sum(sizes * (sizes + 1)))
    floor, peak, more = machine.compute_floor(args.dtype, mesh.size)
    rows: list[dict[str, Any]] = []
    for name, work in runs:
        timing = timings[f"{name}/{work}"]
        speed = operations * (1 if work == "forward" else 3) / timing.median
        row = {"backend": name, "work": work, "seconds": timing.to_mapping(), "flops_per_second": speed}
        row |= {"of_floor": speed / floor, "mfu": speed / peak}
        if (name, work) in programs:
            program = programs[name, work]
            row |= {"temporary_bytes": program.temporaries, "compile_seconds": program.seconds}
        else:
            row["ratio"] = timing.median / min(timings[f"{one}/{work}"].median for one, _ in programs)
        rows.append(row)
    labels = [f"{row['backend']}, {row['work']}" for row in rows]
    return BenchResult(
        title=f"attention, {B} rows x {T}, {args.documents} documents each, {K * G} heads of {H}, {K} of keys, "
        f"{args.dtype}",
        columns=(
            text("backend", "backend"),
            text("work", "work"),
            seconds("seconds", "time"),
            number("flops_per_second", "TFLOP/s", ",.3f", 1e-12),
            number("of_floor", "of matmul", ".1%"),
            number("mfu", "of peak", ".1%"),
            number("temporary_bytes", "temporary MB", ",.1f", 1e-6),
            number("compile_seconds", "compile s", ".1f"),
            number("ratio", "our best is faster by", ".2f"),
        ),
        rows=rows,
        notes=(*notes, *more),
        bars=(
            Bars(
                "milliseconds", {label: 1e3 * row["seconds"]["median"] for label, row in zip(labels, rows, strict=True)}
            ),
            Bars("TFLOP/s", {label: row["flops_per_second"] / 1e12 for label, row in zip(labels, rows, strict=True)}),
        ),
        again=next(iter(runs.values())),
    )


def _functions(backend: str):
    """Forward; and gradients of the three inputs, whose forward pass is part of it."""

    def forward(q, k, v, segment_ids) -> Array:
        return attend(q, k, v, AttentionSpec(segment_ids), backend)

    def total(q, k, v, segment_ids) -> Array:
        return jnp.sum(forward(q, k, v, segment_ids).astype(jnp.float32))

    return forward, jax.grad(total, argnums=(0, 1, 2))


def _place(array: np.ndarray, mesh: jax.sharding.Mesh, heads: str | None = None) -> Array:
    axes = ("batch", None) if heads is None else ("batch", None, heads, *[None] * (array.ndim - 3))
    return jax.device_put(array, jax.NamedSharding(mesh, spec(*axes)))
