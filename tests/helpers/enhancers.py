"""The smallest enhancer, with random weights that make audible sound; config files of enhancers."""

import dataclasses
import functools

import jax

from helpers.config_files import ROOT
from ualm_jax.cli.config_file import load_config
from ualm_jax.codecs.enhance.config import EnhancerConfig
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.codecs.enhance.parameters import init_enhancer
from ualm_jax.mapping import from_mapping
from ualm_jax.train.enhance_config import EnhanceRunConfig

TINY = EnhancerConfig(
    frame=16, width=8, mlp_dim=8, encoder_blocks=1, decoder_blocks=2, kernel_size=3, latent_width=4, noise_bands=5
)


@functools.cache
def tiny_enhancer(**changes) -> Enhancer:
    """Random kernels are made large, so that everything matters, and levels higher, so that it is heard."""
    config = dataclasses.replace(TINY, **changes)
    params = jax.tree.map(lambda leaf: 2 * leaf, init_enhancer(config, seed=0))
    for name in ("magnitude", "noise"):
        params["decoder"][name]["bias"] += 10
    return Enhancer(config, params)


def enhance_config(name: str, changes: dict[str, dict]) -> EnhanceRunConfig:
    """A config file with some fields changed, by their group."""
    values = load_config(str(ROOT / "configs" / f"{name}.py"), []).to_dict()
    for group, fields in changes.items():
        values[group] |= fields
    return from_mapping(EnhanceRunConfig, values)
