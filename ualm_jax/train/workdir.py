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
from ualm_jax.data.loading.loader import open_sources
from ualm_jax.errors import UserError
from ualm_jax.mapping import to_mapping
from ualm_jax.models.audio_encoder import AudioEncoder, from_directory
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.tokenizer import Tokenizer, load_tokenizer
from ualm_jax.train.checkpoint import restore_params
from ualm_jax.train.config import RunConfig, read_run_config


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, ready to use on `mesh`. step: optimiser steps behind its parameters."""

    config: RunConfig
    mesh: Mesh
    step: int
    model: UALM
    codec: XCodec
    tokenizer: Tokenizer
    encoder: AudioEncoder | None


def prepare_workdir(config: RunConfig, workdir: pathlib.Path) -> None:
    """Writes what must lie beside the checkpoints to use them: configuration, tokenizer, codec and encoder."""
    dataset = open_sources(config.data)[0]  # all were made with the same tokenizer and codec
    workdir.mkdir(parents=True, exist_ok=True)
    parts = {name: dataset.directory / name for name in ("tokenizer", "codec")}
    if config.train.encoder is not None:
        given = pathlib.Path(config.train.encoder)
        parts["encoder"] = given / "encoder" if (given / "encoder").is_dir() else given
    for name, source in parts.items():
        if not source.is_dir():
            raise UserError(f"There is no folder {source} to take the {name} from.")
        if not (workdir / name).exists():
            beside = workdir / f".{name}.partial"
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(source, beside)
            os.replace(beside, workdir / name)
    beside = workdir / ".config.json.partial"
    beside.write_text(json.dumps(to_mapping(config), indent=2) + "\n")
    os.replace(beside, workdir / "config.json")


def load_encoder(config: RunConfig, workdir: pathlib.Path) -> AudioEncoder | None:
    """The run's audio encoder on the current mesh, None for a run that does not listen.

    Raises UserError where it does not fit what the data room makes for it, or the model's adapter.
    """
    if config.train.encoder is None:
        return None
    encoder = from_directory(workdir / "encoder")
    if encoder.front_end.windowed != config.data.front_end.windowed:
        raise UserError(f"data.audio_encoder is {config.data.audio_encoder!r}, but train.encoder holds another kind.")
    chunk = encoder.front_end.chunk_frames
    if config.data.window_frames % chunk or (encoder.front_end.windowed and config.data.window_frames != chunk):
        raise UserError(
            f"data.window_frames is {config.data.window_frames}, but the encoder wants "
            f"{'exactly' if encoder.front_end.windowed else 'a multiple of'} {chunk}."
        )
    if encoder.output_width != config.model.feature_width:
        raise UserError(
            f"model.feature_width is {config.model.feature_width}, but the encoder's features are "
            f"{encoder.output_width} wide; set it to that."
        )
    return encoder


def read_config(workdir: pathlib.Path) -> RunConfig:
    """The configuration of a run. Raises UserError where `workdir` holds none."""
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} is not the --workdir of a training run: it has no config.json.")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); start the run again with `ualm train`.") from error
    return read_run_config(values)


def load_run(workdir: pathlib.Path) -> Run:
    """The newest parameters of a run and what belongs to them, on a mesh of this process's first device.

    Raises UserError for a folder without a run or without a finished checkpoint.
    """
    config = read_config(workdir)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        structure, abstract = abstract_model(config.model, config.execution)
        step, params = restore_params(workdir / "checkpoints", abstract, mesh)
        encoder = load_encoder(config, workdir)
    return Run(
        config=config,
        mesh=mesh,
        step=step,
        model=nnx.merge(structure, params),
        codec=XCodec.from_directory(workdir / "codec"),
        tokenizer=load_tokenizer(workdir / "tokenizer"),
        encoder=encoder,
    )
