"""Folders of weights as others leave them."""

import contextlib
import dataclasses
import json
import shutil

import jax
import numpy as np


def save_omni(directory):
    """Named and nested as Qwen2.5-Omni's own checkpoint: the tower in one shard, the talker in the other."""
    import torch
    from safetensors.numpy import save_file
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

    sizes = dict(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, output_dim=24)
    config = Qwen2_5OmniAudioEncoderConfig(**sizes)
    torch.manual_seed(0)
    tower = {name: value.numpy() for name, value in Qwen2_5OmniAudioEncoder(config).state_dict().items()}
    shards = [
        {f"thinker.audio_tower.{name}": value for name, value in tower.items()},
        {"talker.model.norm.weight": np.ones(8, np.float32)},
    ]
    directory.mkdir()
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file(shard, directory / file)
        weight_map |= dict.fromkeys(shard, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    nested = {"model_type": "qwen2_5_omni", "thinker_config": {"audio_config": config.to_dict()}}
    (directory / "config.json").write_text(json.dumps(nested))
    return tower


class _NoBatches:
    """Stands where it stood."""

    def _never(self, *_):
        raise NotImplementedError

    __next__ = progress = record_names = close = _never

    def get_state(self):
        return {"sources": {}}

    def set_state(self, state):
        assert state == self.get_state()


def save_run(converted, workdir, steps=(7,), deaf=False):
    """What training leaves in its --workdir, with the parameters of a converted checkpoint at every step; deaf: without
    its adapter."""
    from helpers.configs_of_runs import run_config
    from ualm_jax.mapping import to_mapping
    from ualm_jax.parallel.mesh import MeshConfig, make_mesh
    from ualm_jax.train.init_from import initial_params
    from ualm_jax.train.optimizer import make_optimizer
    from ualm_jax.train.step import state_from
    from ualm_jax.weights.opener import open_weights

    weights = open_weights(converted)
    config = run_config(weights.architecture)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = initial_params(converted, config.model, config.execution, mesh)
    if deaf:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, feature_width=None))
        params = type(params)({name: part for name, part in params.items() if name != "adapter"})
    workdir.mkdir()
    for name, part in weights.parts.items():
        shutil.copytree(part, workdir / name)
    (workdir / "config.json").write_text(json.dumps(to_mapping(config)))
    with jax.set_mesh(mesh):
        state = state_from(params, make_optimizer(config.optimizer))
    checkpoints = checkpoints_of(workdir, config.model)
    for step in steps:
        checkpoints.save(step, state, _NoBatches(), force=True)
    checkpoints.close()


def checkpoints_of(workdir, architecture):
    from ualm_jax.mapping import to_mapping
    from ualm_jax.train.checkpoint import Checkpoints

    identity = {"model": to_mapping(architecture)}
    return Checkpoints(workdir / "checkpoints", every=1, keep=5, identity=identity)


def restore_run(workdir, architecture):
    """The newest state of what `save_run` left, as training restores it."""
    from flax import nnx

    from helpers.configs_of_runs import run_config
    from ualm_jax.models.config import Execution
    from ualm_jax.models.ualm import UALM
    from ualm_jax.train.optimizer import make_optimizer
    from ualm_jax.train.step import init_state

    optimizer = make_optimizer(run_config(architecture).optimizer)
    abstract = jax.eval_shape(lambda: init_state(lambda: UALM(architecture, Execution(), nnx.Rngs(0)), optimizer))
    with contextlib.closing(checkpoints_of(workdir, architecture)) as checkpoints:
        return checkpoints.restore(abstract, _NoBatches(), jax.sharding.get_mesh())
