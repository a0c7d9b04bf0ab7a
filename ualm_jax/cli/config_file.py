"""Config files: finding them, overriding their fields as the Flax examples do, checking them."""

import ast
import importlib.resources
import pathlib

from absl import flags
from ml_collections import config_flags

from ualm_jax.errors import UserError


def load_config(path: str, overrides: list[str]):
    """The ConfigDict of a config file with `--config.a.b=value` overrides applied.

    path: a file, or the name of one that comes with the package (`configs/tiny.py` works from any folder).
    """
    values = flags.FlagValues()
    argv = ["ualm", f"--config={_find(path)}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
        return values.config
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {_one_sentence(error)}; `ualm train --help` lists the fields.") from error


def _find(path: str) -> pathlib.Path:
    if pathlib.Path(path).is_file():
        return pathlib.Path(path)
    packaged = importlib.resources.files("ualm_jax.configs") / pathlib.Path(path).name
    if pathlib.Path(str(packaged)).is_file():
        return pathlib.Path(str(packaged))
    known = sorted(
        entry.name for entry in importlib.resources.files("ualm_jax.configs").iterdir() if entry.name[0] not in "_."
    )
    raise UserError(
        f"There is no config file {path}; the package has {', '.join(f'configs/{name}' for name in known)}."
    )


def _one_sentence(error: Exception) -> str:
    message = str(error.args[0]) if error.args else type(error).__name__
    if message[:1] in "'\"" and message[-1:] == message[:1]:
        message = ast.literal_eval(message)  # ml-collections wraps one KeyError into another
    known = "there is no field " if isinstance(error, KeyError | AttributeError) else ""
    return known + " ".join(message.split()).rstrip(".")
