"""AdamW with clipping and a warm-up cosine schedule."""

import dataclasses

import optax

from ualm_jax.errors import UserError
from ualm_jax.models.config import DTYPES
from ualm_jax.train.precision import stored_as


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Defaults are the reference's (`conf/train.yaml`, `conf/deepspeed.json`).

    state_dtype: "float32", or "bfloat16", which halves the two moments; the arithmetic is float32 either way.
    The learning rate rises linearly over warmup_steps to peak_lr and falls along a cosine to end_lr at decay_steps.
    """

    peak_lr: float = 1e-4
    end_lr: float = 0.0
    warmup_steps: int = 2000
    decay_steps: int = 500_000
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 3e-7
    clip_norm: float = 1.0
    state_dtype: str = "float32"

    def __post_init__(self):
        if not 0 <= self.warmup_steps < self.decay_steps:
            raise UserError(
                f"optimizer.warmup_steps ({self.warmup_steps}) must lie in [0, decay_steps = {self.decay_steps})."
            )
        for name in ("peak_lr", "eps", "clip_norm"):
            if getattr(self, name) <= 0:
                raise UserError(f"optimizer.{name} must be positive, got {getattr(self, name)}.")
        if self.state_dtype not in DTYPES:
            raise UserError(f"optimizer.state_dtype must be one of {', '.join(DTYPES)}, got {self.state_dtype!r}.")
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
