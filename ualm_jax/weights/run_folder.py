"""The work folder of a training run, as readers of its weights see it."""

import pathlib
from typing import Any

from ualm_jax.errors import UserError
from ualm_jax.weights.hf_folder import read_json


def newest_step(workdir: pathlib.Path) -> int:
    """Step of the newest finished checkpoint. Raises UserError where there is none."""
    directory = workdir / "checkpoints"
    steps = [int(entry.name) for entry in directory.iterdir() if entry.name.isdigit()] if directory.is_dir() else []
    if not steps:
        raise UserError(f"{directory} holds no finished checkpoint; train first, or give another --workdir.")
    return max(steps)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """Its config.json. Raises UserError where `workdir` holds none."""
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} is not the --workdir of a training run: it has no config.json.")
    return read_json(workdir / "config.json")
