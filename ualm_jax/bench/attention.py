"""How fast attention is on packed documents: every backend that this device has, forward, and forward and backward."""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ualm_jax.bench import machine
from ualm_jax.bench.program import Program, compile_program
from ualm_jax.bench.result import Bars, BenchResult, number, seconds, text
from ualm_jax.bench.sizes import model_config
from ualm_jax.bench.timing import time_in_turn
from ualm_jax.bench.workload import open_mesh
from ualm_jax.errors import UserError
from ualm_jax.models.attention import AttentionSpec, attend
from ualm_jax.models.config import ATTENTION
from ualm_jax.parallel.sharding import spec

_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
_WORK = ("forward", "forward + backward")
FORMULA = (
    "useful operations: 2 N H n (n + 1) for each document of n positions, thrice that with the backward pass; what a "
    "backend computes beyond the documents or a second time does not count"
)
_MIXTURE = (
    "mixture: 3 of 4 documents are a caption of 10 to 60 ids and 500 frames (every third 100 to 500), the others a "
    "question and an answer, log-normal around 400 ids with sigma 0.9, at most 3 000; the last of a row is cut"
)


def run(args: argparse.Namespace) -> BenchResult:
    """Two rows for each backend and number of documents; `--attention` picks a backend, auto takes all.

    A backend that can not run here, or not be compiled, is a note, unless it was picked. Raises ValueError where two of
    them attend differently, or have different gradients.
    """
    config = model_config(args)
    mesh = open_mesh(args, config, args.rows)
    B, T, H = args.rows, args.length, config.architecture.decoder.head_dim
    K, G = config.architecture.decoder.num_kv_heads, config.architecture.decoder.queries_per_kv_head
    rng = np.random.default_rng(0)
    packed = {documents: np.stack([segment_ids(documents, T, rng) for _ in range(B)]) for documents in args.documents}
    host = [rng.standard_normal(shape, np.float32) for shape in ((B, T, K, G, H), (B, T, K, H), (B, T, K, H))]
    names = [name for name in ATTENTION if name != "auto"] if args.attention == "auto" else [args.attention]
    programs: dict[tuple[str, str], Program] = {}
    notes = [FORMULA, *([_MIXTURE] if "mixture" in args.documents else [])]
    with jax.set_mesh(mesh):
        arrays = [_place(array.astype(args.dtype), mesh, "kv_heads") for array in host]
        segments = {documents: _place(ids, mesh) for documents, ids in packed.items()}
        for name in names:
            try:
                some = (*arrays, segments[args.documents[0]])
                for work, function in zip(_WORK, _functions(name), strict=True):
                    programs[name, work] = compile_program(jax.jit(function), *some)
            except UserError as error:
                notes.append(str(error))
            except Exception as error:  # kernels of others fail in ways of their own; the other backends can be timed
                if len(names) == 1:
                    raise
                notes.append(
                    f"{name} could not be compiled: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
                )
                programs.pop((name, _WORK[0]), None)
    if not programs:
        raise UserError(notes[-1])
    if args.against == "torch":
        from ualm_jax.bench import reference_torch

        notes.append(reference_torch.prepare())
    rows: list[dict[str, Any]] = []
    floor, peak, more = machine.compute_floor(args.dtype, mesh.size)
    for documents, ids in packed.items():
        runs = {
            key: functools.partial(_finish, program.call, *arrays, segments[documents])
            for key, program in programs.items()
        }
        outputs = {key: [np.asarray(x, np.float32) for x in jax.tree.leaves(run())] for key, run in runs.items()}
        if args.against == "torch":
            from ualm_jax.bench import reference_torch_attention

            theirs = reference_torch_attention.Attention(host, ids, args.dtype)
            outputs["torch sdpa", _WORK[0]] = [theirs.result().reshape(B, T, K, G, H)]
            runs |= {("torch sdpa", _WORK[0]): theirs.forward, ("torch sdpa", _WORK[1]): theirs.both}
        _check(outputs, args.dtype)
        timings = time_in_turn({"/".join(key): run for key, run in runs.items()}, args.repeats, warmup=1)
        sizes = np.concatenate([np.bincount(row)[1:] for row in ids]).astype(float)
        operations = 2.0 * K * G * H * float(np.sum(sizes * (sizes + 1)))
        for name, work in runs:
            timing = timings[f"{name}/{work}"]
            speed = operations * (1 if work == _WORK[0] else 3) / timing.median
            row = {"documents": documents, "backend": name, "work": work, "seconds": timing.to_mapping()}
            row |= {"flops_per_second": speed, "of_floor": speed / floor, "mfu": speed / peak}
            if (name, work) in programs:
                program = programs[name, work]
                row |= {"temporary_bytes": program.temporaries, "compile_seconds": program.seconds}
            else:
                row["ratio"] = timing.median / min(
                    timings[f"{one}/{work}"].median for one, done in programs if done == work
                )
            rows.append(row)
    labels = [f"{row['backend']}, {row['documents']}, {row['work']}" for row in rows]
    return BenchResult(
        title=f"attention, {B} rows x {T}, {K * G} heads of {H}, {K} of keys, {args.dtype}",
        columns=(
            text("documents", "documents a row"),
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
        again=lambda: [run() for (_, work), run in runs.items() if work == _WORK[1]],
    )


def _finish(call: Callable[..., Any], *arrays: Array) -> Any:
    return jax.block_until_ready(call(*arrays))


def segment_ids(documents: str, T: int, rng: np.random.Generator) -> np.ndarray:
    """Segment ids [T] of a row of so many documents of one length, or of a mixture; see _MIXTURE."""
    if documents != "mixture":
        ends = np.linspace(0, T, int(documents) + 1).astype(int)
        return np.repeat(np.arange(1, int(documents) + 1, dtype=np.int32), np.diff(ends))
    ids = np.zeros(T, np.int32)
    start, number = 0, 0
    while start < T:
        length = int(rng.integers(10, 61)) + 14  # a question, what surrounds it and its answer, and the delay
        if number % 4 == 3:
            length += int(np.clip(400 * np.exp(0.9 * rng.standard_normal()), 10, 3000))
        else:
            length += 500 if number % 3 else int(rng.integers(100, 501))
        number += 1
        ids[start : start + length] = number
        start += length
    return ids


def _check(outputs: dict[tuple[str, str], list[np.ndarray]], dtype: str) -> None:
    """Raises ValueError where a backend differs from the first one, in what it attends to or in a gradient."""
    for work in _WORK:
        first, *others = (key for key in outputs if key[1] == work)
        for other in others:
            for one, two in zip(outputs[first], outputs[other], strict=True):
                furthest = np.abs(one - two).max() / max(1.0, np.abs(one).max())
                if not furthest <= _TOLERANCE[dtype]:
                    raise ValueError(f"{other[0]} and {first[0]} differ in {work}, by {furthest:.1e}")


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
