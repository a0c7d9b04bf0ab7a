"""`ualm score`: the model that a run begins with says how likely it finds the run's data."""

import functools
import pathlib

import jax

from ualm_jax.data.dataset.folder import open_dataset
from ualm_jax.data.loading.loader import open_sources
from ualm_jax.errors import UserError
from ualm_jax.models.log_probabilities import Sequences
from ualm_jax.parallel.mesh import check_rows_of_processes, make_mesh
from ualm_jax.tokens.types import Batch
from ualm_jax.train.config import RunConfig
from ualm_jax.train.preference import check_kind
from ualm_jax.train.reference import Reading, reference_key, rows_everywhere, score_rows, write_columns
from ualm_jax.train.stages.model import encoder_of, model_of, starting_params
from ualm_jax.train.stages.run import checked_parts


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
    check_rows_of_processes(mesh.devices)
    with jax.set_mesh(mesh):
        parts = checked_parts(config, out)
        infos = open_sources(config.data)
        check_kind(config.train.objective, infos[0])
        if config.eval.directory is not None:
            infos.append(open_dataset(config.eval.directory))
        encoder = encoder_of(config, parts)
        model, params = model_of(config, encoder), starting_params(config, encoder, mesh)

        def rows(batch: Batch, number: int) -> Sequences:
            return score_rows(model.structure, params, model.constants, batch, number)

        reading = Reading(config.data, config.model.vocabulary, model.front_end)
        everywhere = functools.partial(rows_everywhere, rows, mesh, config.train.grad_accum_steps)
        write_columns(infos, reading, reference_key(model.whole(params), parts), everywhere, out)
    return out
