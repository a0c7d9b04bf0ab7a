"""What a value that enters may be, said in its type and checked in one place: fields of configurations, and arguments.

@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    peak_lr: Annotated[float, Bounds(above=0)] = 1e-4

    def __post_init__(self):
        check_fields(self, "optimizer")
"""

import dataclasses
import functools
import math
import numbers
import types
import typing
from typing import Annotated, Any

import numpy as np

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
        return " and ".join(
            f"{words} {limit}" if isinstance(limit, int) else f"{words} {limit:g}"
            for words, limit in limits
            if limit is not None
        )


@dataclasses.dataclass(frozen=True)
class OneOf:
    options: tuple[str, ...]


Count = Annotated[int, Bounds(at_least=1)]
Natural = Annotated[int, Bounds(at_least=0)]
Seed = Annotated[int, Bounds(at_least=0, at_most=2**32 - 1)]
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(at_least=0)]


Share = Annotated[float, Bounds(at_least=0, at_most=1)]


def check_fields(config: Any, group: str) -> None:
    """Every number of a dataclass is one, is finite and within its bounds, also in a tuple; every choice is one of its
    options, and what is True or False is nothing else.

    NumPy's numbers become Python's, and lists of numbers tuples, so that a configuration can be compared, hashed and
    written as JSON. Raises UserError that names the field as `group.name`.
    """
    for name, form in _fields(type(config)):
        value = getattr(config, name)
        checked = form.checked(value, f"{group}.{name}")
        if checked is not value:
            object.__setattr__(config, name, checked)


def check_value(value: Any, hint: Any, name: str) -> Any:
    """`check_fields` for one argument, of this type."""
    return _form(hint).checked(value, name)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """type: int, float, bool, or another one, which is not checked."""

    type: Any
    wanted: Bounds | OneOf | None

    def checked(self, value: Any, name: str, shown: Any) -> Any:
        """shown: the whole that the value is an entry of."""
        if self.type is bool:
            if not isinstance(value, bool | np.bool_):
                raise UserError(f"{name} must be True or False, got {shown!r}.")
            return bool(value)
        if self.type in (int, float):
            value = self._number(value, name, shown)
        if isinstance(self.wanted, Bounds) and not self.wanted.holds(value):
            raise UserError(f"{name} must be {self.wanted}, got {shown}.")
        if isinstance(self.wanted, OneOf) and value not in self.wanted.options:
            raise UserError(f"{name} must be one of {', '.join(self.wanted.options)}, got {shown!r}.")
        return value

    def _number(self, value: Any, name: str, shown: Any) -> int | float:
        """As Python's. A whole one stays whole where others are allowed, too: files hold what was given."""
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
        if self.type is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
            if math.isfinite(value):
                return float(value)
            wanted = "finite "
        else:
            wanted = "whole " if self.type is int else ""
        wanted = f"a {wanted}number" if shown is value else f"{wanted}numbers"
        raise UserError(f"{name} must be {wanted}, got {shown!r}.")


@dataclasses.dataclass(frozen=True)
class _Form:
    """alone: what a value may be by itself; entries: what those of a tuple may be."""

    may_be_none: bool
    alone: _Kind | None
    entries: _Kind | None

    def checked(self, value: Any, name: str) -> Any:
        if value is None and self.may_be_none:
            return None
        if self.entries is not None and isinstance(value, tuple | list):
            return tuple(self.entries.checked(entry, name, value) for entry in value)
        if self.alone is not None:
            return self.alone.checked(value, name, value)
        if self.entries is not None:
            raise UserError(f"{name} must be a tuple of numbers, got {value!r}.")
        return value


@functools.cache
def _fields(config: type) -> list[tuple[str, _Form]]:
    return [(name, _form(hint)) for name, hint in typing.get_type_hints(config, include_extras=True).items()]


@functools.cache
def _form(hint: Any) -> _Form:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = typing.get_args(hint) if union else (hint,)
    alone, entries = [], None
    for option in options:
        if typing.get_origin(option) is not tuple:
            alone.append(_kind(option))
        elif len(set(typing.get_args(option)) - {...}) == 1 and _kind(typing.get_args(option)[0]).type in (int, float):
            entries = _kind(typing.get_args(option)[0])
    may_be_none = _NONE in alone
    alone = [kind for kind in alone if kind != _NONE]
    return _Form(may_be_none, alone[0] if len(alone) == 1 else None, entries)


def _kind(hint: Any) -> _Kind:
    return _Kind(*typing.get_args(hint)[:2]) if typing.get_origin(hint) is Annotated else _Kind(hint, None)


_NONE = _Kind(type(None), None)
