"""AdamW or Muon with clipping, and the schedule of the learning rate."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import jax.numpy as jnp
import optax

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, NotNegative, OneOf, Positive, check_fields
from ualm_jax.models.config import DTYPES
from ualm_jax.models.paths import map_with_paths, matches
from ualm_jax.train.muon import MUON, OTHERS, kinds, scale_by_muon
from ualm_jax.train.precision import stored_as

SCHEDULES = ("cosine", "constant", "wsd")


@dataclasses.dataclass(frozen=True)
class LrMultiplier:
    """What the learning rate of some parameters is multiplied with. pattern: of their paths, such as "adapter"."""

    pattern: str
    factor: NotNegative

    def __post_init__(self):
        check_fields(self, "optimizer.lr_multipliers")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Defaults are the reference's (`conf/train.yaml`, `conf/deepspeed.json`).

    kind: "adamw", or "muon": the matrices of the decoder's layers by `train/muon.py`, all else by AdamW.
    The learning rate rises linearly over warmup_steps to peak_lr. From there, by `schedule`:
        cosine: it falls along a cosine to end_lr at decay_steps.
        constant: it stays; decay_steps and end_lr mean nothing.
        wsd: it stays, and falls linearly to end_lr over the cooldown_steps that end at decay_steps.
    lr_multipliers: for groups of parameters; of several that match the last counts.
    state_dtype: "float32", or "bfloat16", which halves the two moments, rounded at random (`train/precision.py`); the
        arithmetic is float32 either way.
    ema_decay: of a moving average of the parameters, which is then what is evaluated, opened and exported.
    """

    kind: Annotated[str, OneOf(("adamw", "muon"))] = "adamw"
    schedule: Annotated[str, OneOf(SCHEDULES)] = "cosine"
    peak_lr: Positive = 1e-4
    end_lr: NotNegative = 0.0
    warmup_steps: Natural = 2000
    decay_steps: Count = 500_000
    cooldown_steps: Natural = 0
    lr_multipliers: tuple[LrMultiplier, ...] = ()
    beta1: Annotated[float, Bounds(at_least=0, below=1)] = 0.9
    beta2: Annotated[float, Bounds(at_least=0, below=1)] = 0.95
    eps: Positive = 1e-8
    weight_decay: NotNegative = 3e-7
    clip_norm: Positive = 1.0
    state_dtype: Annotated[str, OneOf(DTYPES)] = "float32"
    ema_decay: Annotated[float, Bounds(at_least=0, below=1)] | None = None

    def __post_init__(self):
        check_fields(self, "optimizer")
        if self.schedule != "constant" and self.warmup_steps >= self.decay_steps:
            raise UserError(
                f"optimizer.warmup_steps ({self.warmup_steps}) must be less than decay_steps ({self.decay_steps})."
            )
        room = self.decay_steps - self.warmup_steps
        if self.schedule == "wsd" and not 1 <= self.cooldown_steps <= room:
            raise UserError(
                f"optimizer.cooldown_steps must lie between 1 and decay_steps - warmup_steps = {room} for the schedule "
                f"wsd, got {self.cooldown_steps}."
            )


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    if config.schedule != "cosine":
        rise = optax.linear_schedule(
            0.0 if config.warmup_steps else config.peak_lr, config.peak_lr, config.warmup_steps
        )
        stay = optax.constant_schedule(config.peak_lr)
        if config.schedule == "constant":
            return optax.join_schedules([rise, stay], [config.warmup_steps])
        fall = optax.linear_schedule(config.peak_lr, config.end_lr, config.cooldown_steps)
        begin = config.decay_steps - config.cooldown_steps
        return optax.join_schedules([rise, stay, fall], [config.warmup_steps, begin])
    return optax.warmup_cosine_decay_schedule(
        0.0 if config.warmup_steps else config.peak_lr,
        config.peak_lr,
        config.warmup_steps,
        config.decay_steps,
        config.end_lr,
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Computes in float32 and gives float32 updates."""
    rate = learning_rate(config)
    optimizer = optax.adamw(rate, b1=config.beta1, b2=config.beta2, eps=config.eps, weight_decay=config.weight_decay)
    if config.kind == "muon":
        muon = optax.chain(
            scale_by_muon(), optax.add_decayed_weights(config.weight_decay), optax.scale_by_learning_rate(rate)
        )
        optimizer = optax.partition({MUON: muon, OTHERS: optimizer}, kinds)
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    return stored_as(_multiplied(optimizer, config.lr_multipliers), config.state_dtype)


def _multiplied(
    optimizer: optax.GradientTransformation, multipliers: Sequence[LrMultiplier]
) -> optax.GradientTransformation:
    """`optimizer` with its updates, weight decay among them, multiplied by path. It has no state of its own."""
    if not multipliers:
        return optimizer

    def factor(path: str) -> float:
        return [1.0, *(one.factor for one in multipliers if matches(one.pattern, path))][-1]

    def update(grads, state, params):
        updates, state = optimizer.update(grads, state, params)
        return map_with_paths(lambda path, leaf: jnp.float32(factor(path)) * leaf, updates), state

    return optax.GradientTransformation(optimizer.init, update)
