"""`ualm_jax.load`: whatever holds weights, ready to use."""

import dataclasses
import os
import pathlib

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder import AudioEncoder, from_directory, load_state
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.tokenizer import Tokenizer, load_tokenizer
from ualm_jax.train.checkpoint import restore_params
from ualm_jax.train.converted import CARD, read_card, read_model_config, restore_converted
from ualm_jax.train.workdir import read_config


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a path held; parts that it lacks are None. Arrays of model and encoder lie on `mesh`.

    config: of the model. Use the model inside `jax.set_mesh(mesh)`.
    """

    mesh: Mesh
    config: Architecture | None = None
    model: UALM | None = None
    codec: XCodec | None = None
    encoder: AudioEncoder | None = None
    tokenizer: Tokenizer | None = None


def load(path: str | os.PathLike) -> Pretrained:
    """Model, codec, encoder and tokenizer from a run, a converted checkpoint or a Hugging Face directory.

    path: the --workdir of a run (its newest checkpoint); what `ualm convert` made; or a local directory of Qwen2
        (extended by random rows for special tokens and 8 codebooks of 1024), X-codec, Qwen2.5-Omni or Audio
        Flamingo 3 as Hugging Face stores it.

    Arrays are laid out on the current mesh (`jax.set_mesh`), or on this process's first device where none is set.
    Raises UserError where `path` is none of these, or damaged.
    """
    path = pathlib.Path(path)
    current = jax.sharding.get_mesh()
    mesh = make_mesh(MeshConfig(), jax.devices()[:1]) if current.empty else current
    with jax.set_mesh(mesh):
        if (path / CARD).is_file():
            return _converted(path, mesh)
        if (path / "checkpoints").is_dir():
            return _run(path, mesh)
        return _hugging_face(path, mesh)


def _converted(path: pathlib.Path, mesh: Mesh) -> Pretrained:
    if "model" not in read_card(path):
        return Pretrained(mesh, **_parts(path))
    config, execution = read_model_config(path)
    structure, abstract = abstract_model(config, execution)
    return Pretrained(mesh, config, nnx.merge(structure, restore_converted(path, abstract, mesh)), **_parts(path))


def _run(path: pathlib.Path, mesh: Mesh) -> Pretrained:
    run = read_config(path)
    structure, abstract = abstract_model(run.model, run.execution)
    _, params = restore_params(path / "checkpoints", abstract, mesh)
    return Pretrained(mesh, run.model, nnx.merge(structure, params), **_parts(path))


def _hugging_face(path: pathlib.Path, mesh: Mesh) -> Pretrained:
    from ualm_jax.convert_weights.foreign import read_json

    if not (path / "config.json").is_file():
        raise UserError(
            f"{path}: expected the --workdir of a run, a converted checkpoint or a Hugging Face directory, found none."
        )
    kind = read_json(path / "config.json").get("model_type")
    if kind == "qwen2":
        return _qwen2(path, mesh)
    if kind == "xcodec":
        return Pretrained(mesh, codec=XCodec.from_directory(path))
    return Pretrained(mesh, encoder=_tower(path))


def _qwen2(path: pathlib.Path, mesh: Mesh) -> Pretrained:
    from ualm_jax.convert_weights.language_model import assemble
    from ualm_jax.convert_weights.qwen2 import plan_qwen2

    plan = plan_qwen2(path)
    structure, abstract = abstract_model(plan.config, Execution())
    leaves = {".".join(key): leaf for key, leaf in nnx.to_flat_state(abstract)}
    for name, value in assemble(plan.infos, plan.pieces):
        leaf = leaves[name]
        sharding = NamedSharding(mesh, leaf.sharding.spec)
        leaf.set_value(jax.device_put(value.astype(leaf.dtype), sharding))
    tokenizer = load_tokenizer(path) if (path / "tokenizer_config.json").is_file() else None
    return Pretrained(mesh, plan.config, nnx.merge(structure, abstract), tokenizer=tokenizer)


def _parts(path: pathlib.Path) -> dict:
    makers = {"codec": XCodec.from_directory, "encoder": from_directory, "tokenizer": load_tokenizer}
    return {name: make(path / name) for name, make in makers.items() if (path / name).is_dir()}


def _tower(path: pathlib.Path) -> AudioEncoder:
    """The encoder inside a whole model."""
    from ualm_jax.convert_weights.frozen import open_tower
    from ualm_jax.convert_weights.parts import read_encoder_config

    files = open_tower(path)
    config = read_encoder_config(path / "config.json")
    return load_state(config, {name: files.read(name) for name in files.tensors})
