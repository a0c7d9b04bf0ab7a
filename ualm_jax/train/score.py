"""`ualm score`: the model that a run begins with says how likely it finds the run's data."""

import pathlib

import jax

from ualm_jax.data.loading.loader import open_sources
from ualm_jax.errors import UserError
from ualm_jax.models.log_probabilities import Sequences
from ualm_jax.parallel.mesh import make_mesh
from ualm_jax.tokens.types import Batch
from ualm_jax.train.config import RunConfig
from ualm_jax.train.model import encoder_of, model_of, starting_params
from ualm_jax.train.preference import check_kind
from ualm_jax.train.reference import reference_key, score_rows, write_columns
from ualm_jax.train.stages import checked_parts


def score(config: RunConfig) -> pathlib.Path:
    """Writes the log-probabilities of all that the run reads, held-out data too, to `config.preference.reference`.

    Raises UserError for a configuration that does not fit the devices, the dataset or the weights, and where the folder
    holds something else.
    """
    if config.preference.reference is None:
        raise UserError("config.preference.reference is missing: the folder to write the log-probabilities to.")
    out = pathlib.Path(config.preference.reference)
    mesh = make_mesh(config.mesh)
    config.check_mesh(**mesh.shape)
    with jax.set_mesh(mesh):
        parts = checked_parts(config, out)
        check_kind(config, open_sources(config.data)[0])
        encoder = encoder_of(config, parts)
        model, params = model_of(config, encoder), starting_params(config, encoder, mesh)
        key = reference_key(config, parts, model.front_end, model.whole(params))

        def rows(batch: Batch, number: int) -> Sequences:
            return score_rows(model.structure, params, model.constants, batch, number)

        write_columns(config, model.front_end, key, rows, mesh, out)
    return out
