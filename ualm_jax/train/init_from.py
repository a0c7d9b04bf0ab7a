"""Parameters that a run begins with: those of a converted checkpoint, of another run, or of a Hugging Face folder."""

import dataclasses
import os

import jax
from flax import nnx
from jax.sharding import Mesh

from ualm_jax.errors import UserError
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.weights.opener import open_weights


def initial_params(
    path: str | os.PathLike, architecture: Architecture, execution: Execution, mesh: Mesh, seed: int = 0
) -> nnx.State:
    """What lies at `path`, on `mesh`, cast to param_dtype; where it could not listen and the run shall, with a fresh
    adapter. Raises UserError where it is another architecture."""
    weights = open_weights(path)
    if weights.architecture is None:
        raise UserError(f"train.init_from={path} holds no language model, only: {', '.join(weights.parts)}.")
    learns_to_listen = weights.architecture.feature_width is None and architecture.feature_width is not None
    for field in dataclasses.fields(Architecture):
        if learns_to_listen and field.name in ("feature_width", "adapter_layers"):
            continue
        found, wanted = getattr(weights.architecture, field.name), getattr(architecture, field.name)
        if found != wanted:
            raise UserError(
                f"train.init_from={path} has model.{field.name} = {found!r}, but this run has {wanted!r}; make them "
                f"equal."
            )
    params = weights.load_params(mesh, execution)
    if not learns_to_listen:
        return params

    @jax.jit
    def adapter() -> nnx.State:
        return nnx.state(UALM(architecture, execution, nnx.Rngs(seed)).adapter, nnx.Param)

    with jax.set_mesh(mesh):
        return nnx.merge_state(params, nnx.State({"adapter": adapter()}))
