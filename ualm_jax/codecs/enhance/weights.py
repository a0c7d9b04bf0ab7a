"""Enhancers on disk: `model.safetensors`, `config.json` and a card for people, in one folder."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import ualm_jax
from ualm_jax.codecs.enhance.config import EnhancerConfig
from ualm_jax.codecs.enhance.parameters import is_tensor, specification
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping, renamed

_FORMAT = "ualm-enhancer"
_WEIGHTS, _CONFIG, _CARD = "model.safetensors", "config.json", "README.md"


def expected(config: EnhancerConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of an enhancer, as its file has them."""
    leaves = jax.tree_util.tree_leaves_with_path(specification(config), is_leaf=is_tensor)
    return {_name(path): leaf.shape for path, leaf in leaves}


def read_directory(path: str | os.PathLike) -> tuple[EnhancerConfig, dict]:
    """The config, and the parameters as a tree of float32 numpy arrays.

    Raises UserError that names file and tensor where one is missing, unexpected, of another shape or type, or not
    finite, and where a file is missing or broken.
    """
    path = Path(path)
    config = read_config(path)
    file = path / _WEIGHTS
    if not file.is_file():
        raise UserError(f"{file}: expected the weights of an enhancer, found no such file")
    try:
        with safe_open(file, framework="numpy") as source:
            stored = {name: source.get_tensor(name) for name in source.keys()}
    except (SafetensorError, TypeError) as error:
        raise UserError(
            f"{file}: expected whole float32 safetensors, found a file that cannot be read ({error})"
        ) from None
    shapes = expected(config)
    for name, shape in shapes.items():
        if name not in stored:
            raise UserError(f"{file}: expected a tensor {name}, as {_CONFIG} beside it says, found none")
        if stored[name].shape != shape or stored[name].dtype != np.float32:
            raise UserError(
                f"{file}: expected {name} in float32 with shape {shape}, as {_CONFIG} beside it says, found "
                f"{stored[name].dtype} with shape {stored[name].shape}; these weights are of another enhancer"
            )
        if not np.isfinite(stored[name]).all():
            raise UserError(f"{file}: expected finite numbers in {name}, found NaN or infinity")
    if more := sorted(stored.keys() - shapes.keys()):
        raise UserError(f"{file}: expected the tensors of an enhancer, found also {', '.join(more)}")
    tree = specification(config)
    return config, jax.tree_util.tree_map_with_path(lambda path, _: stored[_name(path)], tree, is_leaf=is_tensor)


def read_config(path: str | os.PathLike) -> EnhancerConfig:
    """The config in an enhancer's folder. Raises UserError where there is none, or one of another model."""
    file = Path(path) / _CONFIG
    try:
        raw = json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{file}: expected the config.json of an enhancer, found no such file") from None
    except ValueError as error:
        raise UserError(f"{file}: expected JSON, found a file that does not parse ({error})") from None
    if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
        raise UserError(f"{file}: expected an enhancer that `ualm enhance train` made, found another kind of model")
    return from_mapping(EnhancerConfig, renamed(raw.get("enhancer", {})), str(file))


def save_directory(params: dict, config: EnhancerConfig, path: str | os.PathLike, made_of: Mapping[str, str]) -> None:
    """Writes a folder that `read_directory` reads. made_of: facts about its training for the card, by name."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    tensors = {_name(key): np.ascontiguousarray(leaf, np.float32) for key, leaf in leaves}
    save_file(tensors, path / _WEIGHTS, metadata={"format": "np"})
    raw = {"format": _FORMAT, "ualm_jax": ualm_jax.__version__, "enhancer": dataclasses.asdict(config)}
    (path / _CONFIG).write_text(json.dumps(raw, indent=2) + "\n")
    (path / _CARD).write_text(_card(config, sum(tensor.size for tensor in tensors.values()), made_of))


def _card(config: EnhancerConfig, parameters: int, made_of: Mapping[str, str]) -> str:
    below = "all is made"
    if config.crossover_hz is not None:
        below = f"below {config.crossover_hz} Hz the mid signal is the input"
    lines = [
        "# Enhancer: 16 kHz mono to 48 kHz stereo",
        "",
        f"A variational autoencoder of {parameters:,} parameters, trained with ualm_jax {ualm_jax.__version__}: "
        f"{16000 / config.hop:g} latents of {config.latent_width} numbers a second, "
        f"{'causal' if config.causal else 'not causal'}, {below}, "
        f"{'mid and side' if config.mid_side else 'left and right'} are made.",
        "",
        *(f"- {what}: {value}" for what, value in made_of.items()),
        "",
        "```",
        "ualm enhance IN.wav OUT.wav --weights .",
        "```",
        "",
        "What lies above the input's band and the stereo field are invented, plausible at best; they say nothing "
        "about what was recorded.",
        "",
    ]
    return "\n".join(lines)


def _name(path) -> str:
    return ".".join(str(key.key) for key in path)
