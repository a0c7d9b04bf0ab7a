"""The folder of a run: what training leaves in it, and how others read it."""

import dataclasses
import json
import os
import pathlib
import shutil

import jax
from flax import nnx
from jax.sharding import Mesh

from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.dataset import open_dataset
from ualm_jax.errors import UserError
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.tokenizer import Tokenizer, load_tokenizer
from ualm_jax.train.checkpoint import restore_params
from ualm_jax.train.config import RunConfig, from_mapping, to_mapping


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, ready to use on `mesh`. step: optimiser steps behind its parameters."""

    config: RunConfig
    mesh: Mesh
    step: int
    model: UALM
    codec: XCodec
    tokenizer: Tokenizer


def prepare_workdir(config: RunConfig, workdir: pathlib.Path) -> None:
    """Writes what must lie beside the checkpoints to use them: configuration, tokenizer and codec."""
    dataset = open_dataset(config.data.directory)
    workdir.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer", "codec"):
        if not (workdir / name).exists():
            beside = workdir / f".{name}.partial"
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(dataset.directory / name, beside)
            os.replace(beside, workdir / name)
    beside = workdir / ".config.json.partial"
    beside.write_text(json.dumps(to_mapping(config), indent=2) + "\n")
    os.replace(beside, workdir / "config.json")


def read_config(workdir: pathlib.Path) -> RunConfig:
    """The configuration of a run. Raises UserError where `workdir` holds none."""
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} is not the --workdir of a training run: it has no config.json.")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); start the run again with `ualm train`.") from error
    return from_mapping(RunConfig, values)


def load_run(workdir: pathlib.Path) -> Run:
    """The newest parameters of a run and what belongs to them, on a mesh of this process's first device.

    Raises UserError for a folder without a run or without a finished checkpoint.
    """
    config = read_config(workdir)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        structure, abstract = nnx.split(jax.eval_shape(lambda: UALM(config.model, nnx.Rngs(0))))
        step, params = restore_params(workdir / "checkpoints", abstract, mesh)
    return Run(
        config=config,
        mesh=mesh,
        step=step,
        model=nnx.merge(structure, params),
        codec=XCodec.from_directory(workdir / "codec"),
        tokenizer=load_tokenizer(workdir / "tokenizer"),
    )
