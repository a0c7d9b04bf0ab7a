"""Arrays that Orbax stored, onto a mesh."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ualm_jax.buckets import Folder, absolute
from ualm_jax.errors import UserError, first_line


def restore_arrays(directory: Folder, abstract: Any, mesh: Mesh) -> Any:
    """The arrays of the pytree `abstract`, laid out and cast as it says; others in `directory` are not read.

    Raises UserError where one is missing, damaged or of another shape.
    """
    wanted = on_mesh(abstract, mesh)
    arguments = ocp.args.PyTreeRestore(
        wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True
    )
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(absolute(directory), args=arguments)
    except Exception as error:
        reason = unreadable(error)
        if reason is None:
            raise
        raise UserError(f"{directory}: its arrays cannot be read ({reason}).") from error


def unreadable(error: Exception) -> str | None:
    """What is wrong with files that Orbax failed to read; None where the error is another, such as a lack of memory."""
    if type(error) is not Exception and not isinstance(error, ValueError | KeyError | TypeError | OSError):
        return None
    while error.__cause__ is not None:  # Orbax wraps what tensorstore says
        error = error.__cause__
    return first_line(error)


def on_mesh(abstract: Any, mesh: Mesh) -> Any:
    """Abstract arrays whose shardings name real devices."""

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec() if leaf.sharding is None else leaf.sharding.spec  # counters have none
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(place, abstract)
