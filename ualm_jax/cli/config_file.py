"""Config files: finding them, overriding their fields as the Flax examples do, checking them."""

import ast
import functools
import importlib.resources
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from ualm_jax.errors import UserError


def load_config(path: str, overrides: list[str]) -> ConfigDict:
    """The ConfigDict of a config file with `--config.a.b=value` overrides applied.

    path: a file, or the name of one that comes with the package (`configs/tiny.py` works from any folder).
    """
    values = flags.FlagValues()
    last = {override.partition("=")[0]: override for override in overrides}
    # The flags of ml_collections take `None` for a word, or for a number that is not one.
    empty = [name for name, override in last.items() if override == f"{name}=None"]
    argv = ["ualm", f"--config={_find(path)}", *(override for name, override in last.items() if name not in empty)]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
        for name in empty:
            *groups, field = name.split(".")[1:]
            group = functools.reduce(getattr, groups, values.config)
            getattr(group, field)  # there is one
            group[field] = None
        return values.config
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: {_one_sentence(error)}; `ualm train --config {path} --print-config` lists the fields."
        ) from error


def listed(values: Mapping[str, Any], prefix: str = "config") -> Iterator[str]:
    """A line for each field: its full name and its value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from listed(value, f"{prefix}.{name}")
        else:
            yield f"--{prefix}.{name}={value}"


def _find(path: str) -> pathlib.Path:
    if pathlib.Path(path).is_file():
        return pathlib.Path(path)
    folder = importlib.resources.files("ualm_jax.configs")
    known = sorted(f"configs/{entry.name}" for entry in folder.iterdir() if entry.name[0] not in "_.")
    if path in known:
        return pathlib.Path(str(folder / pathlib.Path(path).name))
    raise UserError(f"There is no config file {path}; the package has {', '.join(known)}.")


def _one_sentence(error: Exception) -> str:
    message = str(error.args[0]) if error.args else type(error).__name__
    if message[:1] in "'\"" and message[-1:] == message[:1]:
        message = ast.literal_eval(message)  # ml-collections wraps one KeyError into another
    message = " ".join(message.split()).rstrip(".")
    if not isinstance(error, KeyError | AttributeError):
        return message
    field, _, near = message.partition(" Did you mean ")
    return f"there is no field {field}" + (f", did you mean {near.split(' instead of ')[0]}" if near else "")
