"""Config files as `ualm train` reads them."""

import importlib.util
import pathlib

from ualm_jax.mapping import from_mapping
from ualm_jax.train.config import RunConfig
from ualm_jax.weights.shipped import located

ROOT = pathlib.Path(__file__).parents[2]


def load(name: str, **mesh) -> RunConfig:
    module_spec = importlib.util.spec_from_file_location(f"config_{name}", ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    values = module.get_config()
    if not values.data.sources and values.train.objective != "grpo":
        values.data.directory = "data/some"
    if any(entry.startswith("encoder") for entry in values.train.trainable):
        values.train.encoder = str(located("soundscript") / "encoder")  # one that is there, and of that size
    values.mesh.update(mesh)
    return from_mapping(RunConfig, values.to_dict())
