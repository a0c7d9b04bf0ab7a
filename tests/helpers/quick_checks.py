"""Types of every call are checked, and shapes where there are any.

The hook that pytest is given (`--jaxtyping-packages`) wraps every function of the package as if it had arrays: a call
is bound to its signature, checked, made, and checked again with what it returns. Of functions that no shape stands in,
as most of those that handle data and texts, beartype checks the same types a tenth as dearly, and is itself made once
and not twice.
"""

import functools
import inspect
import typing

import jaxtyping

_with_shapes = jaxtyping.jaxtyped


def check_quickly() -> None:
    """Before the package is imported."""
    jaxtyping.jaxtyped = _checked


def _checked(*, typechecker):
    def decorate(made):
        if not inspect.isfunction(made) or inspect.isgeneratorfunction(made) or inspect.iscoroutinefunction(made):
            return _with_shapes(typechecker=typechecker)(made)
        hints = inspect.get_annotations(made)
        if not hints:
            return made
        if any(map(_may_hold_shapes, hints.values())):
            return _with_shapes(typechecker=typechecker)(made)
        checked = typechecker(made)

        @functools.wraps(made)
        def call(*args, **kwargs):
            return (made if jaxtyping.config.jaxtyping_disable else checked)(*args, **kwargs)

        return call

    return decorate


def _may_hold_shapes(hint) -> bool:
    """Names of types in quotes may stand for anything, and so may type variables."""
    if isinstance(hint, (list, tuple)):  # arguments of a Callable
        return any(map(_may_hold_shapes, hint))
    if isinstance(hint, (str, typing.ForwardRef, typing.TypeVar)):
        return True
    return getattr(hint, "__module__", "").startswith("jaxtyping") or any(map(_may_hold_shapes, typing.get_args(hint)))
