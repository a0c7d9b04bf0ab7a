"""AdamW with clipping and a warm-up cosine schedule."""

import dataclasses
from typing import Annotated

import optax

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, NotNegative, OneOf, Positive, check_fields
from ualm_jax.models.config import DTYPES
from ualm_jax.train.precision import stored_as


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Defaults are the reference's (`conf/train.yaml`, `conf/deepspeed.json`).

    state_dtype: "float32", or "bfloat16", which halves the two moments; the arithmetic is float32 either way.
    The learning rate rises linearly over warmup_steps to peak_lr and falls along a cosine to end_lr at decay_steps.
    """

    peak_lr: Positive = 1e-4
    end_lr: NotNegative = 0.0
    warmup_steps: Natural = 2000
    decay_steps: Count = 500_000
    beta1: Annotated[float, Bounds(at_least=0, below=1)] = 0.9
    beta2: Annotated[float, Bounds(at_least=0, below=1)] = 0.95
    eps: Positive = 1e-8
    weight_decay: NotNegative = 3e-7
    clip_norm: Positive = 1.0
    state_dtype: Annotated[str, OneOf(DTYPES)] = "float32"

    def __post_init__(self):
        check_fields(self, "optimizer")
        if self.warmup_steps >= self.decay_steps:
            raise UserError(
                f"optimizer.warmup_steps ({self.warmup_steps}) must be less than decay_steps ({self.decay_steps})."
            )
        if self.state_dtype == "bfloat16" and max(self.beta1, self.beta2) > 0.99:
            raise UserError(
                f"optimizer.state_dtype bfloat16 needs beta1 and beta2 of at most 0.99, got {self.beta1} and "
                f"{self.beta2}: its 8 bits do not hold steps of less than a 256th, and the moments would stand still."
            )


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(
        0.0 if config.warmup_steps else config.peak_lr,
        config.peak_lr,
        config.warmup_steps,
        config.decay_steps,
        config.end_lr,
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Computes in float32 and gives float32 updates."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        ),
    )
    return stored_as(optimizer, config.state_dtype)
