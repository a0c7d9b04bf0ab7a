"""Converted checkpoints as training and loading read them; `ualm convert` writes them.

DIR/ualm.json      what it is: format, model, vocabulary, source, checksums
DIR/README.md      the same for people
DIR/params/        the arrays, as Orbax stores them
DIR/tokenizer/, DIR/codec/, DIR/encoder/   where there are such, as Hugging Face stores them
"""

import json
import pathlib
from typing import Any

import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh

from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping, renamed
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.ualm import abstract_model
from ualm_jax.train.checkpoint import on_mesh, restore_params
from ualm_jax.train.workdir import read_config

FORMAT = 1
CARD = "ualm.json"


def read_card(directory: pathlib.Path) -> dict[str, Any]:
    """`ualm.json`. Raises UserError where there is none, or one that this version cannot read."""
    path = directory / CARD
    try:
        card = json.loads(path.read_text())
        version = card["format"]
    except FileNotFoundError:
        raise UserError(
            f"{directory} is no converted checkpoint: it has no {CARD}; make one with `ualm convert`."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); convert the weights again.") from None
    if version != FORMAT:
        raise UserError(f"{path} has format {version}, expected {FORMAT}; convert the weights again with this version.")
    return card


def read_model_config(directory: pathlib.Path) -> tuple[Architecture, Execution]:
    """The language model of a converted checkpoint, and its param_dtype. Raises UserError where it holds none."""
    card = read_card(directory)
    if "model" not in card:
        raise UserError(
            f"{directory} holds no language model, only: {card.get('kind')}; give one made by another importer."
        )
    model = dict(card["model"])
    execution = Execution(param_dtype=model.pop("param_dtype"))
    return from_mapping(Architecture, renamed(model), "model"), execution


def restore_converted(directory: pathlib.Path, abstract: nnx.State, mesh: Mesh) -> nnx.State:
    """The parameters, laid out and cast as `abstract` says, on `mesh`."""
    wanted = nnx.to_pure_dict(on_mesh(abstract, mesh))
    restored = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(
        (directory / "params").absolute(),
        args=ocp.args.PyTreeRestore(wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted)),
    )
    nnx.replace_by_pure_dict(abstract, restored)
    return abstract


def initial_params(path: pathlib.Path, architecture: Architecture, execution: Execution, mesh: Mesh) -> nnx.State:
    """Parameters to begin a run with, from a converted checkpoint or another run's --workdir, cast to param_dtype.

    Raises UserError where its model is not that of `architecture`.
    """
    run = (path / "config.json").is_file() and not (path / CARD).is_file()
    found = read_config(path).model if run else read_model_config(path)[0]
    for name in ("decoder", "vocabulary", "feature_width", "adapter_layers"):
        if getattr(found, name) != getattr(architecture, name):
            raise UserError(
                f"train.init_from={path} has model.{name} = {getattr(found, name)!r}, but this run has "
                f"{getattr(architecture, name)!r}; make them equal."
            )
    _, abstract = abstract_model(architecture, execution)
    if run:
        return restore_params(path / "checkpoints", abstract, mesh)[1]
    return restore_converted(path, abstract, mesh)
