"""Folders of weights as others leave them."""

import json

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


def save_run(converted, workdir):
    """What training leaves in its --workdir, with the parameters of a converted checkpoint."""
    import orbax.checkpoint as ocp

    from helpers.configs_of_runs import run_config
    from ualm_jax.mapping import to_mapping
    from ualm_jax.train.init_from import initial_params
    from ualm_jax.train.optimizer import make_optimizer
    from ualm_jax.train.step import state_from
    from ualm_jax.weights.opener import open_weights

    config = run_config(open_weights(converted).architecture)
    params = initial_params(converted, config.model, config.execution, jax.sharding.get_mesh())
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(to_mapping(config)))
    with ocp.CheckpointManager((workdir / "checkpoints").absolute(), item_names=("state",)) as manager:
        state = state_from(params, make_optimizer(config.optimizer))
        manager.save(7, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), force=True)
