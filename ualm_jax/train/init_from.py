"""Parameters that a run begins with: those of a converted checkpoint, of another run, or of a Hugging Face folder."""

import dataclasses
import pathlib

from flax import nnx
from jax.sharding import Mesh

from ualm_jax.errors import UserError
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.lora import adapted_params
from ualm_jax.train.config import RunConfig
from ualm_jax.weights.opener import open_weights


def initial_params(path: pathlib.Path, architecture: Architecture, execution: Execution, mesh: Mesh) -> nnx.State:
    """What lies at `path`, on `mesh`, cast to param_dtype. Raises UserError where it is another architecture."""
    weights = open_weights(path)
    if weights.architecture is None:
        raise UserError(f"train.init_from={path} holds no language model, only: {', '.join(weights.parts)}.")
    for field in dataclasses.fields(Architecture):
        found, wanted = getattr(weights.architecture, field.name), getattr(architecture, field.name)
        if found != wanted:
            raise UserError(
                f"train.init_from={path} has model.{field.name} = {found!r}, but this run has {wanted!r}; make them "
                f"equal."
            )
    return weights.load_params(mesh, execution)


def with_adapters(params: nnx.State, config: RunConfig) -> nnx.State:
    """With fresh low-rank adapters, where the run has such."""
    if not config.lora.rank:
        return params
    return adapted_params(params, config.model, config.execution, config.lora, config.train.seed)
