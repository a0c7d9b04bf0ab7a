"""Arrays that Orbax stored, onto a mesh."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ualm_jax.errors import UserError
from ualm_jax.weights.tensor_files import first_line


def restore_arrays(directory: pathlib.Path, abstract: Any, mesh: Mesh) -> Any:
    """The arrays of the pytree `abstract`, laid out and cast as it says; others in `directory` are not read.

    Raises UserError where one is missing, damaged or of another shape.
    """
    wanted = on_mesh(abstract, mesh)
    arguments = ocp.args.PyTreeRestore(
        wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True
    )
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(directory.absolute(), args=arguments)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{directory}: its arrays cannot be read ({first_line(error)}).") from error


def on_mesh(abstract: Any, mesh: Mesh) -> Any:
    """Abstract arrays whose shardings name real devices."""

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec() if leaf.sharding is None else leaf.sharding.spec  # counters have none
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(place, abstract)
