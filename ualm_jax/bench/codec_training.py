"""How fast a codec learns: the steps of `ualm codec train` with codes and with discriminators, on sounds that stay the
same.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from ualm_jax.bench.program import compile_program
from ualm_jax.bench.result import Bars, BenchResult, number, seconds, text
from ualm_jax.bench.timing import time_in_turn
from ualm_jax.bench.train import check_same
from ualm_jax.codecs.discriminators import init_discriminators
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.errors import UserError
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.codec_step import CodecGenerator, codebooks_from
from ualm_jax.train.gan import init_gan_state, make_gan_step
from ualm_jax.train.optimizer import OptimizerConfig, make_optimizer

_CHECKED = 3  # steps: the first compares weights, the others the optimiser and the codebooks


def measure(config: CodecRunConfig, rows: int, frames: int, repeats: int, *, torch: bool) -> BenchResult:
    """A row for each step and side. Raises ValueError where torch, from the same parameters, has another loss or
    gradient, UserError for a config that its side does not compute.
    """
    if torch and config.codec.codebook_dim is not None:
        raise UserError("--against torch has no factorised codes: give a config without codec.codebook_dim.")
    config = repeatable(config)
    codec = config.codec.trainable().config
    wav = np.random.default_rng(0).normal(0, 0.1, (rows, frames * codec.hop)).astype(np.float32)
    notes: tuple[str, ...] = ()
    if torch:
        from ualm_jax.bench import reference_torch, reference_torch_codec

        notes = (reference_torch.prepare(),)
    found: list[dict[str, Any]] = []
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        for judged in (False, True):
            ours = Ours(config, wav, judged)
            sides = {"ours": ours.step}
            if torch:
                theirs = reference_torch_codec.Training(config, ours.parameters(), wav, judged)
                sides["torch"] = theirs.step
                for _ in range(_CHECKED):
                    (loss, norm), (their_loss, their_norm) = ours.step(), theirs.step()
                    check_same("loss", loss, their_loss)
                    check_same("gradient norm", norm, their_norm, tolerance=1e-2)
            timings = time_in_turn(sides, repeats)
            for side, timing in timings.items():
                row = {"step": "with discriminators" if judged else "with codes", "side": side}
                row |= {
                    "seconds": timing.to_mapping(),
                    "audio_per_second": wav.size / codec.sample_rate / timing.median,
                }
                if side == "ours":
                    row |= {"compile_seconds": ours.program.seconds, "memory_bytes": ours.program.memory}
                else:
                    row["ratio"] = timing.median / timings["ours"].median
                found.append(row)
    count = sum(leaf.size for leaf in jax.tree.leaves(ours.parameters()["params"]))
    return BenchResult(
        title=f"training a codec of {count / 1e6:,.2f} M parameters, {rows} crops of {frames} frames "
        f"({wav.shape[1] / codec.sample_rate:.2f} s), float32",
        columns=(
            text("step", "step"),
            text("side", "side"),
            seconds("seconds", "time"),
            number("audio_per_second", "audio s/s", ".1f"),
            number("memory_bytes", "GiB", ".2f", 2**-30),
            number("compile_seconds", "compile s", ".1f"),
            number("ratio", "ours is faster by", ".2f"),
        ),
        rows=found,
        notes=notes,
        bars=(
            Bars(
                "seconds of audio per second",
                {f"{row['step']} {row['side']}": row["audio_per_second"] for row in found},
            ),
        ),
        again=ours.step,
    )


def repeatable(config: CodecRunConfig) -> CodecRunConfig:
    """`config` with nothing drawn, so that both sides can take the same steps, and optimisers that step from the start.

    What it costs to draw is still paid: dead codes are looked for, and rows could use fewer codebooks.
    """

    def constant(optimizer: OptimizerConfig) -> OptimizerConfig:
        return dataclasses.replace(optimizer, schedule="constant", warmup_steps=0)

    return dataclasses.replace(
        config,
        quantizer=dataclasses.replace(config.quantizer, dropout=0.0, dead_below=0.0),
        optimizer=constant(config.optimizer),
        judges_optimizer=constant(config.judges_optimizer),
    )


class Ours:
    """The compiled step of a codec's training, and the state it moves. A mesh must be set.

    The parameters are random ones: time does not depend on them.
    """

    def __init__(self, config: CodecRunConfig, wav: Float32[np.ndarray, "B N"], judged: bool):
        trainable = config.codec.trainable()
        full = init_random(trainable.config, seed=0)
        judges = init_discriminators(config.adversarial.discriminators, 1, seed=0) if judged else {}
        optimizer, judges_optimizer = make_optimizer(config.optimizer), make_optimizer(config.judges_optimizer)
        self._state = init_gan_state(
            trainable.narrowed(full),
            codebooks_from(jnp.asarray(full["codebooks"])),
            judges,
            optimizer,
            judges_optimizer,
            fsdp=1,
        )
        self._batch = shard_batch({"wav": wav}, jax.sharding.get_mesh())
        step = make_gan_step(
            CodecGenerator(trainable, config.loss, config.quantizer, codes=True),
            optimizer,
            config.adversarial if judged else None,
            judges_optimizer,
            seed=config.train.seed,
            averaging=config.train.averaging,
        )
        self.program = compile_program(step, self._state, self._batch)

    def parameters(self) -> dict[str, Any]:
        """Host arrays: "params" that are trained, "codebooks" [Q, V, D], "judges"."""
        state = self._state
        return jax.device_get({"params": state.params, "codebooks": state.rest.embed, "judges": state.judges})

    def step(self) -> tuple[float, float]:
        """Loss and norm of its gradient before it is clipped."""
        self._state, metrics = jax.block_until_ready(self.program.call(self._state, self._batch))
        return float(metrics["loss"]), float(metrics["grad_norm"])
