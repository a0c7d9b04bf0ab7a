"""What exporters read: a converted checkpoint or the work folder of a training run, its arrays unread."""

import dataclasses
import pathlib
from typing import Any

from ualm_jax.convert_weights.language_model import check_store
from ualm_jax.convert_weights.store import ArrayStore
from ualm_jax.errors import UserError
from ualm_jax.models.config import Architecture
from ualm_jax.train.converted import CARD, read_card, read_model_config
from ualm_jax.train.workdir import read_config


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """notes: what the importer kept of the source; empty for a run. step: of a run, 0 for a converted checkpoint."""

    path: pathlib.Path
    architecture: Architecture
    store: ArrayStore
    notes: dict[str, Any]
    step: int

    def part(self, name: str) -> pathlib.Path | None:
        """Its folder `tokenizer`, `codec` or `encoder`, where there is one."""
        return self.path / name if (self.path / name).is_dir() else None


def open_checkpoint(path: pathlib.Path) -> Checkpoint:
    """Raises UserError where `path` is neither, or its arrays are not those of its model."""
    if (path / CARD).is_file():
        (architecture, _), notes, step = read_model_config(path), read_card(path)["source"], 0
        store = ArrayStore(path / "params")
    elif (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        architecture, notes = read_config(path).model, {}
        steps = [int(entry.name) for entry in (path / "checkpoints").iterdir() if entry.name.isdigit()]
        if not steps:
            raise UserError(f"{path}/checkpoints holds no finished checkpoint; train first.")
        step = max(steps)
        store = ArrayStore(path / "checkpoints" / str(step) / "state")
    else:
        raise UserError(f"{path}: expected a converted checkpoint ({CARD}) or the --workdir of a run, found neither.")
    check_store(store, architecture, path)
    return Checkpoint(path, architecture, store, notes, step)
