"""The folder of a run: what training leaves in it, and how others read it."""

import json
import os
import pathlib
import shutil

from ualm_jax.data.loading.loader import open_sources
from ualm_jax.errors import UserError
from ualm_jax.mapping import to_mapping
from ualm_jax.models.audio_encoder import AudioEncoder, from_directory
from ualm_jax.train.config import RunConfig


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
