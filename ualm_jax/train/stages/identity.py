"""What a checkpoint must agree with to be continued: all of a configuration but what is named here."""

from typing import Any

from ualm_jax.data.dataset.reference import read_key
from ualm_jax.mapping import to_mapping
from ualm_jax.train.config import RunConfig

FREE = (
    "execution",
    "mesh",
    "eval",
    "data.directory",
    "data.sources",
    "data.num_workers",
    "data.prefetch",
    "optimizer.schedule",
    "optimizer.peak_lr",
    "optimizer.end_lr",
    "optimizer.warmup_steps",
    "optimizer.decay_steps",
    "optimizer.cooldown_steps",
    "optimizer.lr_multipliers",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "train.steps",
    "train.init_from",
    "train.init_lora",
    "train.encoder",
    "train.grad_accum_steps",
    "train.log_every",
    "train.save_interval",
    "train.max_to_keep",
    "preference.reference",
    "grpo.prompts",
    "grpo.slots",
)
"""Groups and fields that may change between a checkpoint and its continuation; all others must agree."""


def identity_of(config: RunConfig) -> dict[str, Any]:
    """All fields but those that are free, by group; and what decides the reference's numbers."""
    groups = to_mapping(config)
    reference = {} if config.reference is None else {"reference": read_key(config.reference)}
    return reference | {
        group: {name: value for name, value in fields.items() if f"{group}.{name}" not in FREE}
        for group, fields in groups.items()
        if group not in FREE
    }
