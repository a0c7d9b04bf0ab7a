"""Checkpoints of state and data iterator together, written asynchronously by Orbax.

A checkpoint is renamed into place when it is whole, so a killed run always finds the last complete one.
"""

import json
import pathlib
from typing import Any

import orbax.checkpoint as ocp
from jax.sharding import Mesh

from ualm_jax.errors import UserError
from ualm_jax.train.batches import Batches
from ualm_jax.weights.restore import on_mesh


class Checkpoints:
    """The checkpoints of one run, in `directory`.

    identity: what a checkpoint must agree with to be continued: the model, optimiser and data configuration.
    """

    def __init__(self, directory: pathlib.Path, *, every: int, keep: int, identity: dict[str, Any]):
        self._directory = directory
        self._every = every
        self._identity = json.loads(json.dumps(identity))
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                save_interval_steps=every, max_to_keep=keep, enable_async_checkpointing=True
            ),
            item_names=("state", "data", "identity"),
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def due(self, step: int) -> bool:
        """Whether a checkpoint shall be made at `step`."""
        return step % self._every == 0

    def save(self, step: int, state: Any, data: Batches, *, force: bool = False) -> bool:
        """Saves in the background where `step` is due, or now with `force`; True if a checkpoint was begun."""
        if self._manager.latest_step() == step:
            return False
        return self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(data.get_state()),
                identity=ocp.args.JsonSave(self._identity),
            ),
            force=force,
        )

    def restore(self, abstract: Any, data: Batches, mesh: Mesh) -> Any:
        """The newest state, laid out as `abstract` says on `mesh`; moves `data` to where it was saved.

        Raises UserError for a checkpoint of another configuration.
        """
        step = self.latest_step()
        self._check_identity(step)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(on_mesh(abstract, mesh)),
                data=ocp.args.JsonRestore(),
            ),
        )
        data.set_state(restored["data"])
        return restored["state"]

    def _check_identity(self, step: int) -> None:
        saved = self._manager.restore(step, args=ocp.args.Composite(identity=ocp.args.JsonRestore()))["identity"]
        for name, value in _flatten(self._identity).items():
            found = _flatten(saved).get(name)
            if found != value:
                raise UserError(
                    f"Checkpoint {self._directory / str(step)} was made with config.{name} = {found!r}, but this run "
                    f"has {value!r}; set it back or choose another --workdir."
                )

    def wait(self) -> None:
        """Until all that was begun is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{name}" if prefix else name)
    return flat
