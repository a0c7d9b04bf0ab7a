"""Checkpoints of state and data iterator together, written asynchronously by Orbax.

A checkpoint is renamed into place when it is whole, its checksums inside, so a killed run always finds the last
complete one, and whoever reads it can tell that it is what was saved (`weights/run_folder.py`).
"""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from ualm_jax.buckets import Folder, absolute, filled, open_folder
from ualm_jax.errors import UserError
from ualm_jax.mapping import renamed
from ualm_jax.parallel.processes import check_same, from_all, meet
from ualm_jax.train.batches import Batches
from ualm_jax.weights.checksums import sums_of, write_sums
from ualm_jax.weights.restore import on_mesh, unreadable
from ualm_jax.weights.run_folder import PARTS, check_step, damaged, saved_steps, sums_name


class Checkpoints:
    """The checkpoints of one run, in `directory`, which lies in its work folder and is made before the first is saved.

    identity: what a checkpoint must agree with to be continued, by group and field of the configuration.
    folders: what else lies in a checkpoint, by name: (state, folder to write) to nothing. All processes call it, with
        the same state; the first writes.
    parts: folders of the work folder that never change in the run, whose checksums are kept, too.
    """

    def __init__(
        self,
        directory: Folder,
        *,
        every: int,
        keep: int,
        identity: dict[str, Any],
        folders: Mapping[str, Callable[[Any, pathlib.Path], None]] | None = None,
        parts: tuple[str, ...] = PARTS,
    ):
        self._directory = directory
        self._every = every
        self._identity = json.loads(json.dumps(identity))
        self._folders = dict(folders or {})
        self._manager = ocp.CheckpointManager(
            absolute(directory),
            options=ocp.CheckpointManagerOptions(
                save_interval_steps=every,
                max_to_keep=keep,
                enable_async_checkpointing=True,
                create=False,
                async_options=ocp.AsyncOptions(timeout_secs=3600),  # process 0 reads it all for its checksums
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
                "identity": ocp.JsonCheckpointHandler(),
                **{name: _Folder() for name in self._folders},
                "checksums": _Checksums(parts),  # the last: it is made when the others are finished
            },
        )

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint on disk, whole or not; all processes ask for it.

        Raises UserError where they see different ones.
        """
        steps = saved_steps(self._directory.parent)
        newest = steps[-1] if steps else None
        check_same(
            f"the newest checkpoint in {self._directory}",
            newest,
            "all must see one folder; a file system of a network may show it as it was a minute ago: start again",
        )
        return newest

    def due(self, step: int) -> bool:
        """Whether a checkpoint shall be made at `step`."""
        return step % self._every == 0

    def save(self, step: int, state: Any, data: Batches, *, force: bool = False) -> bool:
        """Saves in the background where `step` is due, or now with `force`; True if a checkpoint was begun."""
        if self._manager.latest_step() == step:
            return False
        meet("save a checkpoint")
        return self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(data.get_state()),
                identity=ocp.args.JsonSave(self._identity),
                **{name: _FolderSave(functools.partial(write, state)) for name, write in self._folders.items()},
                checksums=_ChecksumsSave(),
            ),
            force=force,
        )

    def restore(self, abstract: Any, data: Batches, mesh: Mesh) -> Any:
        """The newest state, laid out as `abstract` says on `mesh`; moves `data` to where it was saved.

        Raises UserError for a checkpoint of another configuration, or one that is damaged.
        """
        step = self.latest_step()
        self._check(step)
        self._check_identity(step)
        restored = self._restore(
            step, state=ocp.args.StandardRestore(on_mesh(abstract, mesh)), data=ocp.args.JsonRestore()
        )
        data.set_state(restored["data"])
        return restored["state"]

    def _check(self, step: int) -> None:
        """Compares checksums, each process those of its share of the files."""
        problem = None
        try:
            check_step(self._directory.parent, step, part=jax.process_index(), parts=jax.process_count())
        except UserError as error:
            problem = error
        if from_all("say whether the checkpoint is whole", np.array(problem is not None)).any():
            problem = problem or UserError(
                f"Checkpoint {self._directory / str(step)} is damaged; the process that found it says more."
            )
        if problem is not None:
            raise problem

    def _check_identity(self, step: int) -> None:
        saved = _flatten(renamed(self._restore(step, identity=ocp.args.JsonRestore())["identity"]))
        for name, value in _flatten(self._identity).items():
            found = saved.get(name, value)  # what an older version did not write down can not be compared
            if found != value:
                name, found, value = _narrowed(name, found, value)
                raise UserError(
                    f"Checkpoint {self._directory / str(step)} was made with config.{name} = {found!r}, but this run "
                    f"has {value!r}; set it back or choose another --workdir."
                )

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # of version 0.1, which has no checksums
            reason = unreadable(error)
            if reason is None:
                raise
            raise damaged(self._directory.parent, step, reason) from error

    def wait(self) -> None:
        """Until all that was begun is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


class _Checksums(ocp.CheckpointHandler):
    """The item of a checkpoint that holds SHA-256 of the others, and of what the run's weights were trained with."""

    def __init__(self, parts: tuple[str, ...]):
        self._names, self._sums = parts, None

    def save(self, directory, args=None) -> None:
        """Nothing is there to be summed yet: the other items are written in the background."""

    def restore(self, directory, args=None) -> None:
        """Readers compare files, see `weights/run_folder.py`."""

    def finalize(self, directory) -> None:
        """Called by one process, when all have written and the items before this one have their names."""
        directory = open_folder(directory)
        step, run = directory.parent, directory.parents[2]
        if self._sums is None:
            self._sums = sums_of(step, *(run / name for name in self._names))
        items = [entry for entry in step.iterdir() if entry.is_dir() and entry != directory]
        write_sums(directory / pathlib.PurePath(sums_name(step)).name, self._sums | sums_of(step, *items))


class _Folder(ocp.CheckpointHandler):
    """An item of a checkpoint that is written by a function, and read by whoever knows its layout."""

    def save(self, directory, args) -> None:
        with filled(open_folder(directory)) as folder:
            args.write(folder)

    def restore(self, directory, args=None) -> None:
        """Nothing of it is needed to go on."""


@ocp.args.register_with_handler(_Folder, for_save=True, for_restore=True)
@dataclasses.dataclass
class _FolderSave(ocp.args.CheckpointArgs):
    write: Callable[[pathlib.Path], None]


@ocp.args.register_with_handler(_Checksums, for_save=True, for_restore=True)
@dataclasses.dataclass
class _ChecksumsSave(ocp.args.CheckpointArgs):
    pass


def _narrowed(name: str, found: Any, value: Any) -> tuple[str, Any, Any]:
    """Of lists of lists, such as thousands of files, the first entry that differs."""
    if all(isinstance(each, list) and each and isinstance(each[0], list) for each in (found, value)):
        for index, entries in enumerate(itertools.zip_longest(found, value)):
            if entries[0] != entries[1]:
                return f"{name}[{index}]", *entries
    return name, found, value


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{name}" if prefix else name)
    return flat
