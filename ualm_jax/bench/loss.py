"""How fast the loss of all streams is, and how much memory it takes, beside logits computed in full."""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from ualm_jax.bench import machine
from ualm_jax.bench.program import compile_program
from ualm_jax.bench.result import Bars, BenchResult, number, seconds, text
from ualm_jax.bench.sizes import SizedModel, model_config
from ualm_jax.bench.timing import time_in_turn
from ualm_jax.bench.train import TOLERANCE, check_same
from ualm_jax.bench.workload import open_mesh, packed_batch
from ualm_jax.models import flops
from ualm_jax.models.cross_entropy import cross_entropy
from ualm_jax.parallel.sharding import reshard, spec


def run(args: argparse.Namespace) -> BenchResult:
    """A row per side: loss and its gradients for hidden states, heads and stream embeddings, from hidden states on.

    Raises ValueError where the sides have different losses.
    """
    config = model_config(args)
    mesh = open_mesh(args, config, args.rows)
    batch = packed_batch(config, args.rows, args.length, 1)
    host = _inputs(config, batch)
    runs, programs, losses, more = {}, {}, {}, ()
    with jax.set_mesh(mesh):
        arrays = _place(host, mesh, args.dtype)
        for name, function in (("ours", _ours), ("plain logits", _plain)):
            gradients = jax.value_and_grad(lambda *a, f=function: f(config, *a), argnums=(0, 1, 2, 3))
            program = programs[name] = compile_program(jax.jit(gradients), *arrays)
            losses[name] = float(program.call(*arrays)[0])
            runs[name] = lambda program=program: jax.block_until_ready(program.call(*arrays))
    if args.against == "torch":
        from ualm_jax.bench import reference_torch

        more = (reference_torch.prepare(),)
        theirs = reference_torch.Loss(host, config)
        losses["torch"], runs["torch"] = theirs.run(), theirs.run
    for loss in losses.values():
        check_same("loss", losses["ours"], loss, TOLERANCE[args.dtype])
    timings = time_in_turn(runs, args.repeats)
    if args.against == "torch":
        more += theirs.parts.notes()

    work = flops.train_step(config.architecture, args.rows, args.length).heads
    floor, _, notes = machine.compute_floor(args.dtype, mesh.size)
    rows: list[dict[str, Any]] = []
    for name, timing in timings.items():
        row = {"side": name, "seconds": timing.to_mapping(), "flops_per_second": work / timing.median}
        row["of_floor"] = work / floor / timing.median
        if name in programs:
            row |= {"temporary_bytes": programs[name].temporaries, "compile_seconds": programs[name].seconds}
        else:
            row["temporary_bytes"] = theirs.temporaries()
        if name != "ours":
            row["ratio"] = timing.median / timings["ours"].median
        rows.append(row)
    V, QW = (
        config.architecture.vocabulary.audio_start,
        config.architecture.vocabulary.size - config.architecture.vocabulary.audio_start,
    )
    bars = [Bars("milliseconds", {row["side"]: 1e3 * row["seconds"]["median"] for row in rows})]
    known = {row["side"]: row["temporary_bytes"] / 1e6 for row in rows if row["temporary_bytes"] is not None}
    return BenchResult(
        title=f"loss and gradients, {args.rows} rows x {args.length}, width {config.architecture.decoder.width}, "
        f"{V:,} + {QW:,} columns, {config.architecture.vocabulary.num_streams} streams, {args.dtype}",
        columns=(
            text("side", "side"),
            seconds("seconds", "time"),
            number("flops_per_second", "GFLOP/s", ",.1f", 1e-9),
            number("of_floor", "of matmul", ".1%"),
            number("temporary_bytes", "temporary MB", ",.1f", 1e-6),
            number("compile_seconds", "compile s", ".1f"),
            number("ratio", "ours is faster by", ".2f"),
        ),
        rows=rows,
        notes=(
            f"floor: {work / 1e9:,.1f} GFLOP, 6 D (V + Q W) for each position; codebooks once for all streams",
            "plain logits: stream 0 over all columns, the other streams over the codebooks', all at once, in JAX",
            *notes,
            *more,
        ),
        bars=(*bars, Bars("temporary memory, MB", known)),
        again=runs["ours"],
    )


def _inputs(config: SizedModel, batch) -> dict[str, np.ndarray]:
    """Host arrays, those of floats float32: hidden states, heads, stream embeddings, next tokens and their weights."""
    rng = np.random.default_rng(0)
    vocabulary, D = config.architecture.vocabulary, config.architecture.decoder.width
    B, T, S = batch.tokens.shape

    def normal(*shape: int, std: float = 0.02) -> np.ndarray:
        return std * rng.standard_normal(shape, np.float32)

    return {
        "hidden": normal(B, T, D, std=1.0),
        "text_head": normal(D, vocabulary.audio_start),
        "audio_head": normal(D, vocabulary.num_codebooks, vocabulary.stream_size),
        "stream_embed": normal(S, D),
        "targets": np.concatenate([batch.tokens[:, 1:], np.zeros_like(batch.tokens[:, :1])], axis=1),
        "weights": np.concatenate([batch.loss_weights[:, 1:], np.zeros_like(batch.loss_weights[:, :1])], axis=1),
    }


def _place(host: dict[str, np.ndarray], mesh: Mesh, dtype: str) -> list[Array]:
    axes = {
        "hidden": ("batch", None, None),
        "text_head": ("embed", "vocab"),
        "audio_head": ("embed", "codebooks", None),
        "stream_embed": (None, None),
        "targets": ("batch", None, None),
        "weights": ("batch", None, None),
    }
    host = host | {"hidden": host["hidden"].astype(dtype)}
    return [jax.device_put(host[name], jax.NamedSharding(mesh, spec(*axes[name]))) for name in axes]


def _ours(config, hidden, text_head, audio_head, stream_embed, targets, weights) -> Array:
    bias = _product("sd,dqw->sqw", stream_embed.at[0].set(0), audio_head, hidden.dtype, None, "codebooks", None)
    losses, _ = cross_entropy(hidden, text_head, audio_head, bias, targets, config.execution.loss_chunk)
    return _mean(losses, weights)


def _plain(config, hidden, text_head, audio_head, stream_embed, targets, weights) -> Array:
    states = hidden[:, :, None] + stream_embed[1:].astype(hidden.dtype)
    audio_head = audio_head.reshape(len(audio_head), -1, out_sharding=spec("embed", None))
    head = jnp.concatenate([reshard(text_head, "embed", None), audio_head], axis=1)
    first = _product("btd,dv->btv", hidden, head, hidden.dtype, "batch", None, None)[:, :, None]
    others = _product("btsd,dv->btsv", states, audio_head, hidden.dtype, "batch", None, None, None)
    start = text_head.shape[1]
    losses = [_negative_log(first, targets[:, :, :1]), _negative_log(others, targets[:, :, 1:] - start)]
    return _mean(jnp.concatenate(losses, axis=-1), weights)


def _negative_log(logits: Array, targets: Array) -> Array:
    hit = targets[..., None] == jnp.arange(logits.shape[-1])
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(hit, logits, 0), axis=-1)


def _product(equation: str, a: Array, b: Array, dtype, *axes: str | None) -> Array:
    """In `dtype`, summed in float32; weights are gathered first, as everywhere."""
    b = reshard(b.astype(dtype), *[None] * b.ndim)
    return jnp.einsum(equation, a.astype(dtype), b, preferred_element_type=jnp.float32, out_sharding=spec(*axes))


def _mean(losses: Array, weights: Array) -> Array:
    return jnp.sum(losses * weights) / jnp.sum(weights[:, :, 0] != 0)
