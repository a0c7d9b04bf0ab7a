"""Audio encoders in Hugging Face's layout: by themselves, or as the audio tower of a whole model."""

import json
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder import (
    AFWhisperConfig,
    AudioEncoder,
    OmniConfig,
    abstract_encoder,
    load_state,
    read_settings,
)
from ualm_jax.models.audio_encoder.weights import UNUSED, table_of, tensors_of
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.weights.hf_folder import open_directory, read_json
from ualm_jax.weights.tensor_files import TensorFiles

EncoderConfig = OmniConfig | AFWhisperConfig
# How the tower's tensors begin: in whole models, and in a checkpoint of the tower alone.
PREFIXES = ("thinker.audio_tower.", "audio_tower.", "model.audio_tower.", "")


def read_encoder_config(path: pathlib.Path) -> EncoderConfig:
    """The audio encoder that a config.json of an encoder, or of the model around it, describes."""
    values = read_json(path)
    kind = audio_section(values).get("model_type")
    kinds = {"qwen2_5_omni_audio_encoder": OmniConfig, "audioflamingo3_encoder": AFWhisperConfig}
    if kind not in kinds:
        raise UserError(f"{path}: expected the configuration of {' or '.join(kinds)}, found model_type {kind!r}.")
    try:
        return kinds[kind].from_hf(values, **read_settings(path.parent))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def audio_section(values: Mapping) -> Mapping:
    """The part of a config.json that describes the encoder."""
    for key in ("thinker_config", "audio_config"):
        values = values.get(key, values)
    return values


def encoder_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of an audio encoder under Hugging Face's names, and its shape there."""
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        state = nnx.state(abstract_encoder(config), nnx.Param)
    ours = {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(state)}
    shapes = {}
    for hf, path, reverse in table_of(config):
        stacked = "{layer}" in hf
        shape = ours[path][1:] if stacked else ours[path]
        for layer in range(config.num_layers if stacked else 1):
            shapes[hf.format(layer=layer)] = shape[::-1] if reverse else shape
    return shapes


def open_tower(source: pathlib.Path) -> TensorFiles:
    """The tower's tensors under their names inside the tower."""
    for prefix in PREFIXES:
        files = open_directory(source, prefix)
        if "conv1.weight" in files.tensors:
            return files
    raise UserError(f"{source}: tensor {PREFIXES[0]}conv1.weight is missing; there is no audio tower here.")


def load_encoder(directory: pathlib.Path) -> AudioEncoder:
    """The encoder in `directory`, alone or inside a whole model, on the current mesh.

    Raises UserError naming the file and tensor that is missing, damaged or of another size.
    """
    config, files = read_encoder_config(directory / "config.json"), open_tower(directory)
    files.check(encoder_shapes(config), directory, unread=UNUSED)
    return load_state(config, {name: files.read(name) for name in files.tensors})


def write_encoder(like: pathlib.Path, arrays: Mapping[str, Float[np.ndarray, "..."]], out: pathlib.Path) -> None:
    """The folder `out` of an encoder of the sizes and settings of the one in `like`, with other parameters.

    arrays: by path in the module, float32.
    """
    from safetensors.numpy import save_file  # a model without an encoder runs where it is not installed

    out.mkdir(parents=True, exist_ok=True)
    write_encoder_config(like, out)
    save_file(tensors_of(read_encoder_config(like / "config.json"), arrays), out / "model.safetensors")


def write_encoder_config(like: pathlib.Path, out: pathlib.Path) -> None:
    """In the folder `out`, the sizes (config.json) and the settings (settings.json) of the encoder in `like`."""
    values = audio_section(read_json(like / "config.json"))
    (out / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    (out / "settings.json").write_text(json.dumps(read_settings(like), indent=2) + "\n")
