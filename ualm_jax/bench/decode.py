"""How fast sound is generated: `decode_segment` as `ualm generate` runs it, guided, its delay structure enforced."""

import argparse
import math
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from ualm_jax.bench import decode_attention, machine
from ualm_jax.bench.program import compile_program, peak_memory
from ualm_jax.bench.result import Bars, BenchResult, number, seconds, text
from ualm_jax.bench.sizes import SizedModel, model_config
from ualm_jax.bench.timing import Timing, time_in_turn
from ualm_jax.bench.train import check_same
from ualm_jax.bench.workload import caption, open_mesh, packed_batch
from ualm_jax.generate.decode import Settings, decode_segment
from ualm_jax.generate.prompts import batch_prompts
from ualm_jax.generate.weights import Weights, make_weights
from ualm_jax.models import flops
from ualm_jax.models.int8 import round_layers
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.types import TokenGrid
from ualm_jax.tokens.vocabulary import AUDIO, EOS, EOT
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.next_token import next_token

_FRAME_RATE = 50  # of X-codec: a step makes a frame
_CFG_SCALE, _TEMPERATURE, _TOP_K = 3.0, 0.8, 20
_CHECKED_STEPS = 8
_LONG = 2000  # positions, of which programs of the kernel share a head's


def run(args: argparse.Namespace) -> BenchResult:
    """One row per batch and side: eager torch with a growing cache, and torch.compile with a static one.

    Every run samples `steps` steps. A run without steps, timed in turn with the others, is what its prompt costs, and
    is taken off. Raises ValueError where torch, from the same weights, has another loss or, in float32 on a CPU, other
    likeliest tokens, and where the kernel that attends, if it is asked for, finds something else than plain JAX.
    """
    config = model_config(args, param_dtype=args.dtype, decode_attention=args.decode_attention)
    mesh = open_mesh(args, config, math.gcd(*args.batch))
    rows: list[dict[str, Any]] = []
    notes = [
        f"a step makes a position of {config.architecture.vocabulary.num_streams} tokens for every prompt, with both "
        f"branches of guidance (scale {_CFG_SCALE:g}); top {_TOP_K} at temperature {_TEMPERATURE:g}",
        f"real time: {_FRAME_RATE} steps a second; prompt: the {args.prompt} positions before the first step",
    ]
    with jax.set_mesh(mesh):
        model = jax.jit(lambda: UALM(*config, nnx.Rngs(0)))()
        theirs = None
        if args.against == "torch":
            from ualm_jax.bench import reference_torch, reference_torch_decoding

            notes.append(reference_torch.prepare())
            theirs = reference_torch.Reference(config, jax.device_get(nnx.state(model, nnx.Param)))
            _check_loss(config, mesh, model, theirs)
            if args.dtype == "float32" and jax.default_backend() == "cpu":  # elsewhere products are rounded
                _check_tokens(config, mesh, make_weights(model), theirs, args.prompt)
        if args.decode_attention == "pallas":
            rooms = [(2 * batch, room) for batch in args.batch for room in (args.prompt + args.steps, _LONG)]
            far = max(decode_attention.check(config.architecture.decoder, *room) for room in rooms)
            notes.append(f"the kernel that attends was first compared with plain JAX: {far:.2g} apart at most")
        if args.int8:
            round_layers(model)
        weights = make_weights(model)
        del model  # all that a step reads is in `weights`
        for batch in args.batch:
            ours = _Ours(config, mesh, weights, batch, args.prompt, args.steps)
            runs = {"ours": ours}
            first_call = {"ours": ours.program.seconds}
            if theirs is not None:
                settings = dict(steps=args.steps, cfg_scale=_CFG_SCALE, temperature=_TEMPERATURE, top_k=_TOP_K)
                runs["torch eager"] = reference_torch_decoding.Decoding(
                    theirs, config, ours.tokens, **settings, compiled=False
                )
                static = reference_torch_decoding.Decoding(theirs, config, ours.tokens, **settings, compiled=True)
                trouble, first_call["torch compiled"] = static.compile()
                if trouble is None:
                    runs["torch compiled"] = static
                else:
                    notes.append(f"batch {batch}: torch.compile could not be timed: {trouble}")
            whole = {name: run.run for name, run in runs.items()}
            prefill = {f"{name} prompt": run.prefill for name, run in runs.items()}
            timings = time_in_turn(whole | prefill, args.repeats)
            for name in runs:
                prompt = timings[f"{name} prompt"]
                step = Timing(tuple((one - prompt.median) / args.steps for one in timings[name].seconds))
                row = {"batch": batch, "side": name, "prompt": prompt.to_mapping(), "step": step.to_mapping()}
                row["whole_run"] = timings[name].to_mapping()
                row |= {"steps_per_second": 1 / step.median, "compile_seconds": first_call.get(name)}
                row["times_real_time"] = batch / step.median / _FRAME_RATE
                row["memory_bytes"] = peak_memory(ours.program) if name == "ours" else reference_torch.peak_memory()
                if name == "ours":
                    our_step = step.median
                else:
                    row["ratio"] = step.median / our_step
                rows.append(row)
    _against_floor(config, mesh, args, rows)
    bandwidth = rows[0]["floor_bytes_per_second"]
    notes.append(
        f"floor: weights ({_weights(config, args.int8) / 1e9:.3f} GB: layers and the columns that can be sampled) and "
        f"keys and values of both branches, read once a step at the measured copy of {bandwidth / 1e9:,.1f} GB/s"
    )
    if jax.default_backend() == "cpu":
        notes.append("no share of the floor stands where weights lie in a CPU's cache: the measured copy is of memory")
    shape = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    labels = [f"{row['side']}, batch {row['batch']}" for row in rows]
    of_floor = {label: 100 * row["of_floor"] for label, row in zip(labels, rows, strict=True) if row["of_floor"]}
    return BenchResult(
        title=f"decoding, {args.size} ({config.architecture.num_params() / 1e6:,.1f} M parameters), "
        f"{args.steps} steps, {args.dtype}{', 8-bit layers' * args.int8}, mesh {shape}",
        columns=(
            text("batch", "batch"),
            text("side", "side"),
            seconds("step", "step"),
            number("steps_per_second", "steps/s", ",.1f"),
            number("times_real_time", "x real time", ",.2f"),
            number("bytes_per_second", "GB/s", ",.1f", 1e-9),
            number("of_floor", "of floor", ".1%"),
            seconds("prompt", "prompt"),
            number("memory_bytes", "GiB", ".2f", 2**-30),
            number("compile_seconds", "compile s", ".1f"),
            number("ratio", "ours is faster by", ".2f"),
        ),
        rows=rows,
        notes=notes,
        bars=(
            Bars("steps per second", dict(zip(labels, (row["steps_per_second"] for row in rows), strict=True))),
            *([Bars("percent of the floor", of_floor)] if of_floor else []),
        ),
        again=ours.run,
    )


def _weights(config: SizedModel, int8: bool) -> int:
    """Bytes; with 8-bit layers their biases and scales, which are few, are counted as if they were weights."""
    width = np.dtype(config.execution.compute_dtype).itemsize
    return (
        flops.decode_weight_bytes(config.architecture, width)
        - (width - 1) * config.architecture.decoder.num_params() * int8
    )


def _against_floor(config: SizedModel, mesh: Mesh, args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Adds to each row what its steps read, and how much of the bandwidth that is."""
    bandwidth = machine.copy_bandwidth(args.dtype) * (1 if jax.default_backend() == "cpu" else mesh.size)
    width = np.dtype(config.execution.compute_dtype).itemsize
    for row in rows:
        # A step in the middle of the run; rows of the cache come in pairs, one for each branch.
        cache = flops.decode_cache_bytes(config.architecture, 2 * row["batch"], args.prompt + args.steps // 2, width)
        row["bytes_per_second"] = (_weights(config, args.int8) + cache) / row["step"]["median"]
        row["floor_bytes_per_second"] = bandwidth
        share = row["bytes_per_second"] / bandwidth
        row["of_floor"] = share if share <= 1 else None  # what lies in a cache is not bound by the copy


class _Ours:
    """`decode_segment`, compiled for prompts of one shape; a run samples `steps` steps whatever it samples."""

    def __init__(self, config: SizedModel, mesh: Mesh, weights: Weights, batch: int, length: int, steps: int):
        prompts = _prompts(config, batch, length)
        self.tokens = np.stack([prompt.tokens for prompt in prompts])
        self._weights = weights
        self._prompts = shard_batch(batch_prompts(prompts, [None] * batch, guided=True, keep_role=True), mesh)
        settings = _settings(config, batch, steps, _TEMPERATURE)
        self._settings = _place(settings, mesh)
        self._idle = _place(settings._replace(active=np.zeros(batch, bool)), mesh)
        how = dict(num_steps=steps, text=False, guided=True, enforce=True, greedy=False)
        self.program = compile_program(decode_segment, weights, self._prompts, self._settings, **how)

    def run(self) -> Array:
        return jax.block_until_ready(self.program.call(self._weights, self._prompts, self._settings))

    def prefill(self) -> Array:
        """The same program with nothing to sample: it reads the prompts, and its loop ends before it begins."""
        return jax.block_until_ready(self.program.call(self._weights, self._prompts, self._idle))


def _prompts(config: SizedModel, batch: int, length: int) -> list[TokenGrid]:
    """Captions that make prompts of `length` positions: bos, role, modality, end and the next role surround them."""
    rng = np.random.default_rng(0)
    return [
        build_prompt([caption(rng, config.architecture.vocabulary, length - 5)], config.architecture.vocabulary)
        for _ in range(batch)
    ]


def _settings(config: SizedModel, batch: int, steps: int, temperature: float) -> Settings:
    """Sound that takes exactly `steps` steps: the delay and the end take as many as there are streams."""
    S = config.architecture.vocabulary.num_streams

    def every(value, dtype) -> np.ndarray:
        return np.full(batch, value, dtype)

    return Settings(
        opening=every(AUDIO, np.int32),
        temperature=np.full((batch, S), temperature, np.float32),
        top_k=np.full((batch, S), _TOP_K, np.int32),
        cfg_scale=every(_CFG_SCALE, np.float32),
        seed=np.arange(batch, dtype=np.uint32),
        min_frames=every(max(1, steps - S), np.int32),
        max_frames=every(max(1, steps - S), np.int32),
        limit=every(steps, np.int32),
        active=every(True, bool),
    )


def _place(settings: Settings, mesh: Mesh) -> Settings:
    def put(array: np.ndarray) -> Array:
        return jax.device_put(array, jax.NamedSharding(mesh, spec("batch", *[None] * (array.ndim - 1))))

    return jax.tree.map(put, settings)


def _check_loss(config: SizedModel, mesh: Mesh, model: UALM, theirs) -> None:
    """Raises ValueError unless both sides hold the same model, by its loss on a small batch."""
    from ualm_jax.bench import reference_torch

    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    batch = packed_batch(config, rows, 64, 1)
    loss = jax.jit(lambda model, batch: next_token(model, batch)["loss"].value())(model, shard_batch(batch, mesh))
    check_same("loss", float(loss), reference_torch.evaluate(theirs, batch))


def _check_tokens(config: SizedModel, mesh: Mesh, weights: Weights, theirs, length: int) -> None:
    """That both sides sample alike: the likeliest tokens of a few steps, as the reference chooses them."""
    from ualm_jax.bench import reference_torch_decoding

    batch = mesh.shape["data"] * mesh.shape["fsdp"]
    prompts = _prompts(config, batch, length)
    ours = decode_segment(
        weights,
        shard_batch(batch_prompts(prompts, [None] * batch, guided=True, keep_role=False), mesh),
        _place(_settings(config, batch, _CHECKED_STEPS, 0.0), mesh),
        num_steps=_CHECKED_STEPS,
        text=False,
        guided=True,
        enforce=False,
        greedy=True,
    )
    tokens = np.stack([prompt.tokens for prompt in prompts])
    settings = dict(steps=_CHECKED_STEPS, cfg_scale=_CFG_SCALE, temperature=0.0, top_k=_TOP_K)
    greedy = reference_torch_decoding.Decoding(theirs, config, tokens, **settings, compiled=False).run()
    for row, other in zip(np.asarray(ours), greedy, strict=True):
        ends = np.flatnonzero(np.isin(row[:, 0], (EOS, EOT)))
        until = ends[0] + 1 if len(ends) else len(row)
        if not np.array_equal(row[:until], other[:until]):
            raise ValueError(f"the two sides sample different tokens:\n{row[:until]}\n{other[:until]}")
