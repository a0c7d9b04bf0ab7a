"""What a field of a configuration may hold, said in its type and checked in one place.

@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    peak_lr: Annotated[float, Bounds(above=0)] = 1e-4

    def __post_init__(self):
        check_fields(self, "optimizer")
"""

import dataclasses
import functools
import math
import types
import typing
from typing import Annotated, Any

from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Of a number, which must be finite in any case. above and below are exclusive."""

    above: int | float | None = None
    at_least: int | float | None = None
    below: int | float | None = None
    at_most: int | float | None = None

    def holds(self, value: int | float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        limits = [(field.name.replace("_", " "), getattr(self, field.name)) for field in dataclasses.fields(self)]
        return " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)


@dataclasses.dataclass(frozen=True)
class OneOf:
    options: tuple[str, ...]


Count = Annotated[int, Bounds(at_least=1)]
Natural = Annotated[int, Bounds(at_least=0)]
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(at_least=0)]


def check_fields(config: Any, group: str) -> None:
    """Every number of a dataclass is one, is finite and within its bounds; every choice is one of its options.

    Raises UserError that names the field as `group.name`.
    """
    for name, kind, wanted, optional in _fields(type(config)):
        value = getattr(config, name)
        if value is None and optional:
            continue
        if kind in (int, float) and not _is_number(value, kind):
            raise UserError(f"{group}.{name} must be {'a whole' if kind is int else 'a finite'} number, got {value!r}.")
        if isinstance(wanted, Bounds) and not wanted.holds(value):
            raise UserError(f"{group}.{name} must be {wanted}, got {value}.")
        if isinstance(wanted, OneOf) and value not in wanted.options:
            raise UserError(f"{group}.{name} must be one of {', '.join(wanted.options)}, got {value!r}.")


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (kind is float and isinstance(value, float) and math.isfinite(value))


@functools.cache
def _fields(config: type) -> list[tuple[str, Any, Bounds | OneOf | None, bool]]:
    """(name, type, what it must hold, whether it may be None) of every field."""
    found = []
    for name, hint in typing.get_type_hints(config, include_extras=True).items():
        optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
        if optional:
            options = [option for option in typing.get_args(hint) if option is not type(None)]
            optional, hint = len(options) < len(typing.get_args(hint)), options[0]
        wanted = None
        if typing.get_origin(hint) is Annotated:
            hint, wanted = typing.get_args(hint)[:2]
        found.append((name, hint, wanted, optional))
    return found
