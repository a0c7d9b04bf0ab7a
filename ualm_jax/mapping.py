"""Frozen dataclasses to nested mappings and back: what JSON files and config files hold of them."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ualm_jax.errors import UserError

if TYPE_CHECKING:
    import ml_collections


def from_mapping(kind: type, values: Mapping[str, Any], path: str = "config") -> Any:
    """A (nested) mapping as the frozen dataclass `kind`. Raises UserError naming the field that does not fit."""
    if not isinstance(values, Mapping):
        raise UserError(f"{path} must be a group of fields, got {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {path}.{near[0]}?" if near else f"it has {', '.join(fields)}."
            raise UserError(f"{path}.{name} is not a field of the configuration; {hint}")
    hints = typing.get_type_hints(kind)
    result = {}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name in values and not (required and values[name] is None):  # a placeholder that nobody has filled
            result[name] = _convert(hints[name], values[name], f"{path}.{name}")
        elif required:
            raise UserError(f"{path}.{name} is missing; set it in the config file or with --{path}.{name}=...")
    return kind(**result)


def config_dict(kind: type) -> "ml_collections.ConfigDict":
    """All fields of a (nested) dataclass for a config file to change: their defaults, or placeholders of their type."""
    import ml_collections  # here, so that timing a step needs less installed

    hints, values = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        hint, default = _without_none(hints[field.name]), field.default
        if dataclasses.is_dataclass(hint):
            values[field.name] = config_dict(hint)
        elif default is dataclasses.MISSING or default is None:
            values[field.name] = ml_collections.config_dict.placeholder(typing.get_origin(hint) or hint)
        else:
            values[field.name] = default
    return ml_collections.ConfigDict(values)


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`, ready for JSON."""
    return dataclasses.asdict(config)


_RENAMED = {
    "mlp_width": "mlp_dim",
    "accumulate": "grad_accum_steps",
    "checkpoint_every": "save_interval",
    "keep": "max_to_keep",
}
"""Fields that version 0.1 wrote under another name."""


_GONE = ("window_frames", "audio_encoder", "normalize_clips")
"""Fields of `data` in version 0.1 that the folder of the audio encoder has today (`models/audio_encoder/config.py`)."""


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stored mapping with the names that its fields have today."""
    return {
        _RENAMED.get(name, name): renamed(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if name not in _GONE
    }


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        return _convert(_without_none(hint), value, path)
    if dataclasses.is_dataclass(hint):
        return from_mapping(hint, value, path)
    if origin is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise UserError(f"{path} must be a list, got {value!r}.")
        return tuple(_convert(typing.get_args(hint)[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is not Any and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise UserError(f"{path} must be {hint.__name__}, got {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path} must be a finite number, got {value!r}.")
    return value


def _without_none(hint: Any) -> Any:
    """The type in an optional one."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    (hint,) = [option for option in typing.get_args(hint) if option is not type(None)]
    return hint
