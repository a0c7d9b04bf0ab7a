"""What verbs share on the command line: a parser that answers a slip in one sentence, and types that check values.

A value is checked when the line is read, before any work begins. Numbers are finite and within bounds, inputs exist,
outputs can be written.

    parser = Parser("ualm bench loss", description=...)
    parser.add_argument("--rows", type=integer(at_least=1), default=4)
    parser.add_argument("--json", type=output_file(".json"))
"""

import argparse
import difflib
import math
import os
import pathlib
import re
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence

from ualm_jax.buckets import Folder, open_folder
from ualm_jax.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_PROCESS = re.compile(r"\S+:\d+,\d+,\d+")


class Parser(argparse.ArgumentParser):
    """Shows its description as written, takes no abbreviations, and names the option that was meant.

    overrides: also takes the fields of a config, `--config.group.field=value`; see `parse_with_overrides`.
    """

    def __init__(self, prog: str | None = None, *, overrides: bool = False, **options):
        options = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False} | options
        super().__init__(prog, **options)
        self._overrides = overrides

    def parse_known_args(self, args: Sequence[str] | None = None, namespace=None):
        # Looked for first: argparse would rather say that a required option is missing than that this one is misspelt.
        args = sys.argv[1:] if args is None else list(args)
        options = [name for name in self._option_string_actions if name.startswith("--")]
        for argument in args:
            if argument == "--" or (self._subparsers is not None and not argument.startswith("-")):
                break  # the rest are values, or options of a subcommand
            name = argument.partition("=")[0]
            if not name.startswith("--") or name in options or (self._overrides and name.startswith("--config.")):
                continue
            near = difflib.get_close_matches(name, options, n=1)
            meant = f"; did you mean {near[0]}?" if near else f"; `{self.prog} --help` lists the options."
            self.error(f"there is no option {name}{meant}")
        return super().parse_known_args(args, namespace)

    def parse_with_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Options, and the fields of a config as `--config.group.field=value`; a space may stand for the `=`."""
        ours, overrides, rest = [], [], iter(argv)
        for argument in rest:
            if not argument.startswith("--config."):
                ours.append(argument)
            elif "=" in argument:
                overrides.append(argument)
            else:
                value = next(rest, None)
                if value is None or value.startswith("--"):
                    self.error(f"{argument} needs a value, as in {argument}=VALUE")
                overrides.append(f"{argument}={value}")
        return self.parse_args(ours), overrides

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def add_device_arguments(parser: argparse.ArgumentParser, *, distributed: bool = True) -> None:
    """--devices and, for work that many processes share, --distributed; `parallel.startup.start` takes both."""
    if distributed:
        parser.add_argument(
            "--distributed",
            nargs="?",
            const="auto",
            type=_process,
            metavar="HOST:PORT,COUNT,INDEX",
            help="one process of many; the others are found through SLURM, Kubernetes or TPU metadata unless given",
        )
    parser.add_argument(
        "--devices", type=integer(at_least=1, at_most=512), metavar="N", help="pretend to be N CPU devices"
    )


def integer(*, at_least: int, at_most: int | None = None) -> Callable[[str], int]:
    """Type of a whole number within bounds, both inclusive."""
    wanted = f"a whole number of at least {at_least}" if at_most is None else f"a whole number, {at_least} to {at_most}"

    def parse(value: str) -> int:
        try:
            found = int(value)
        except ValueError:
            raise ArgumentTypeError(f"expected {wanted}, got {value!r}") from None
        if found < at_least or (at_most is not None and found > at_most):
            raise ArgumentTypeError(f"expected {wanted}, got {value}")
        return found

    return parse


def number(
    *, above: int | float | None = None, at_least: int | float | None = None, at_most: int | float | None = None
) -> Callable[[str], float]:
    """Type of a finite number within bounds. above: exclusive; at_least, at_most: inclusive."""
    bounds = [("above", above), ("at least", at_least), ("at most", at_most)]
    wanted = " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)
    wanted = f"a number {'' if above is not None else 'of '}{wanted}" if wanted else "a finite number"

    def parse(value: str) -> float:
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        too_small = (above is not None and found <= above) or (at_least is not None and found < at_least)
        if not math.isfinite(found) or too_small or (at_most is not None and found > at_most):
            raise ArgumentTypeError(f"expected {wanted}, got {value!r}")
        return found

    return parse


def text(value: str) -> str:
    """Type of words for a model: valid UTF-8 that is not blank."""
    try:
        value.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(value).decode(errors="replace")
        raise ArgumentTypeError(f"expected text in UTF-8, got bytes that are none: {shown!r}") from None
    if not value.strip():
        raise ArgumentTypeError("expected text, got none")
    return value


def local_path(value: str) -> pathlib.Path:
    """Type of a path on this machine: not empty, and no URL."""
    if not value:
        raise ArgumentTypeError("expected a path, got an empty one")
    if _URL.match(value):
        raise ArgumentTypeError(f"expected a path on this machine, got the URL {value}; mount it as a folder")
    return pathlib.Path(value)


def input_file(value: str) -> pathlib.Path:
    """Type of a file to read."""
    path = local_path(value)
    if path.is_dir():
        raise ArgumentTypeError(f"expected a file, {value} is a folder")
    return _readable(path)


def input_directory(value: str) -> pathlib.Path:
    """Type of a folder to read."""
    path = local_path(value)
    if path.exists() and not path.is_dir():
        raise ArgumentTypeError(f"expected a folder, {value} is a file")
    return _readable(path)


def model_directory(value: str) -> Folder:
    """Type of what weights are read from: a folder here or in a bucket, or the name of a model that is shipped with the
    package."""
    from ualm_jax.weights.shipped import located

    try:
        folder = located(value or local_path(value))
        if isinstance(folder, pathlib.Path):
            return input_directory(str(folder))
        if not folder.is_dir():
            raise ArgumentTypeError(f"there is no {folder}")
        return folder
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


def output_file(*suffixes: str) -> Callable[[str], pathlib.Path]:
    """Type of a file to write, whose name ends with one of `suffixes` if there are any; its folder must be there."""

    def parse(value: str) -> pathlib.Path:
        path = local_path(value)
        if path.is_dir():
            raise ArgumentTypeError(f"expected a file, {value} is a folder")
        if suffixes and path.suffix.lower() not in suffixes:
            raise ArgumentTypeError(f"expected a name that ends with {' or '.join(suffixes)}, got {value}")
        if not path.parent.is_dir():
            raise ArgumentTypeError(f"there is no folder {path.parent} to write {path.name} into")
        _try_writing(path if path.exists() else path.parent)
        return path

    return parse


def output_directory(value: str) -> pathlib.Path:
    """Type of a folder to make or to write into; folders above it are made with it."""
    path = local_path(value)
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise ArgumentTypeError(f"expected a folder, {there} is a file")
    _try_writing(there)
    return path


def run_directory(value: str) -> Folder:
    """Type of the work folder of a run: what `output_directory` takes, or a URL gs://BUCKET/PATH."""
    if not _URL.match(value):
        return output_directory(value)
    try:
        return open_folder(value)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


def _process(value: str) -> str:
    if value != "auto" and not _PROCESS.fullmatch(value):
        raise ArgumentTypeError(f"expected HOST:PORT,COUNT,INDEX, got {value!r}")
    return value


def _readable(path: pathlib.Path) -> pathlib.Path:
    if not path.exists():
        raise ArgumentTypeError(f"there is no {path}")
    if not os.access(path, os.R_OK):
        raise ArgumentTypeError(f"{path} can not be read: permission denied")
    return path


def _try_writing(path: pathlib.Path) -> None:
    """Opens the file, or a nameless one in the folder: permissions alone do not tell, for root and mounts."""
    try:
        if path.is_dir():
            tempfile.TemporaryFile(dir=path).close()
        else:
            path.open("ab").close()
    except OSError as error:
        raise ArgumentTypeError(f"{path} can not be written: {(error.strerror or str(error)).lower()}") from None
