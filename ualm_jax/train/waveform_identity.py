"""What a checkpoint of a codec or an enhancer must agree with to be continued: all of a configuration but what is named
here.
"""

from collections.abc import Mapping
from typing import Any

from ualm_jax.mapping import to_mapping

_RATES = ("schedule", "peak_lr", "end_lr", "warmup_steps", "decay_steps", "cooldown_steps", "lr_multipliers")
_OPTIMIZER = (*_RATES, "weight_decay", "clip_norm")
_FREE = {
    "data": ("folder", "soundscript", "language", "workers", "threads"),  # the sounds have a fingerprint
    "pairs": ("codec",),  # it has one, too
    "optimizer": _OPTIMIZER,
    "judges_optimizer": _OPTIMIZER,
    "train": ("steps", "init_from", "log_every", "save_interval", "max_to_keep"),
}
"""Fields that may change between a checkpoint and its continuation, as those of `mesh` and `eval` may."""


def waveform_identity(config: Any, more: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """All fields but those that are free, by group. more: what must agree besides, by group."""
    return {
        group: {name: value for name, value in fields.items() if name not in _FREE.get(group, ())} | more.get(group, {})
        for group, fields in to_mapping(config).items()
        if group not in ("mesh", "eval")
    }
