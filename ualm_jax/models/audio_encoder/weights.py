"""Hugging Face's weights of an audio tower: what they are called, where they go.

Every kernel is stored there with its axes in the opposite order of ours ([out, in], [out, in, 3]); tables of
embeddings are not. Nothing else differs, so an entry is a name, a path and whether to turn the axes round.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Shaped

from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder.af_whisper import AFWhisperEncoder
from ualm_jax.models.audio_encoder.config import AFWhisperConfig, OmniConfig
from ualm_jax.models.audio_encoder.omni import OmniEncoder


class Tensor(NamedTuple):
    hf: str  # "{layer}" is the layer's number
    ours: str  # path in the module; under "layers" the layers are stacked on a leading axis
    reverse: bool = True  # axes in the opposite order


SHARED = (
    Tensor("conv1.weight", "conv1.kernel"),
    Tensor("conv1.bias", "conv1.bias"),
    Tensor("conv2.weight", "conv2.kernel"),
    Tensor("conv2.bias", "conv2.bias"),
    Tensor("layers.{layer}.self_attn_layer_norm.weight", "layers.attention_norm.scale"),
    Tensor("layers.{layer}.self_attn_layer_norm.bias", "layers.attention_norm.bias"),
    Tensor("layers.{layer}.self_attn.q_proj.weight", "layers.query.kernel"),
    Tensor("layers.{layer}.self_attn.q_proj.bias", "layers.query.bias"),
    Tensor("layers.{layer}.self_attn.k_proj.weight", "layers.key.kernel"),
    Tensor("layers.{layer}.self_attn.v_proj.weight", "layers.value.kernel"),
    Tensor("layers.{layer}.self_attn.v_proj.bias", "layers.value.bias"),
    Tensor("layers.{layer}.self_attn.out_proj.weight", "layers.output.kernel"),
    Tensor("layers.{layer}.self_attn.out_proj.bias", "layers.output.bias"),
    Tensor("layers.{layer}.final_layer_norm.weight", "layers.mlp_norm.scale"),
    Tensor("layers.{layer}.final_layer_norm.bias", "layers.mlp_norm.bias"),
    Tensor("layers.{layer}.fc1.weight", "layers.up.kernel"),
    Tensor("layers.{layer}.fc1.bias", "layers.up.bias"),
    Tensor("layers.{layer}.fc2.weight", "layers.down.kernel"),
    Tensor("layers.{layer}.fc2.bias", "layers.down.bias"),
)
OMNI = SHARED + (
    Tensor("ln_post.weight", "norm.scale"),
    Tensor("ln_post.bias", "norm.bias"),
    Tensor("proj.weight", "projection.kernel"),
    Tensor("proj.bias", "projection.bias"),
)
AF_WHISPER = SHARED + (
    Tensor("embed_positions.weight", "positions", reverse=False),
    Tensor("layer_norm.weight", "norm.scale"),
    Tensor("layer_norm.bias", "norm.bias"),
)
# in the checkpoint of Qwen2.5-Omni, but no computation uses it
UNUSED = frozenset({"audio_bos_eos_token.weight"})


def table_of(config: OmniConfig | AFWhisperConfig) -> tuple[Tensor, ...]:
    """All tensors of an encoder."""
    return OMNI if isinstance(config, OmniConfig) else AF_WHISPER


def build(config: OmniConfig | AFWhisperConfig, *, rngs: nnx.Rngs) -> OmniEncoder | AFWhisperEncoder:
    """The encoder of this config with random weights, split over the current mesh."""
    return (OmniEncoder if isinstance(config, OmniConfig) else AFWhisperEncoder)(config, rngs=rngs)


def abstract_encoder(config: OmniConfig | AFWhisperConfig) -> OmniEncoder | AFWhisperEncoder:
    """What `build` makes, with shapes, dtypes and shardings in the place of arrays."""
    return nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0)))


def load_state(
    config: OmniConfig | AFWhisperConfig, tensors: Mapping[str, Shaped[np.ndarray, "..."]]
) -> OmniEncoder | AFWhisperEncoder:
    """The encoder of this config with Hugging Face's weights, split over the current mesh.

    Args:
        tensors: the audio tower's tensors under their names inside the tower ("conv1.weight", not
            "thinker.audio_tower.conv1.weight"), of any float dtype.

    Raises:
        UserError: a tensor is missing, left over, or of the wrong shape.
    """
    graph, state = nnx.split(abstract_encoder(config))
    targets = {".".join(path): leaf for path, leaf in nnx.to_flat_state(state)}
    unread = set(tensors) - UNUSED

    def read(name: str, shape: tuple[int, ...], reverse: bool) -> np.ndarray:
        if name not in tensors:
            raise UserError(f"audio encoder weights: tensor {name!r} is missing")
        unread.discard(name)
        found = tensors[name].T if reverse else tensors[name]
        if found.shape != shape:
            expected = shape[::-1] if reverse else shape
            raise UserError(
                f"audio encoder weights: tensor {name!r} must have shape {expected}, got "
                f"{tensors[name].shape}; the config is of a model of another size."
            )
        return found

    for hf, ours, reverse in table_of(config):
        target = targets.pop(ours)
        value = target.get_value()
        if "{layer}" in hf:
            names = [hf.format(layer=layer) for layer in range(config.num_layers)]
            whole = np.stack([read(name, value.shape[1:], reverse) for name in names])
        else:
            whole = read(hf, value.shape, reverse)
        sharding = jax.NamedSharding(jax.sharding.get_mesh(), value.sharding.spec)
        whole = whole.astype(value.dtype)
        # Not device_put, which of many processes gathers a copy of each to compare them.
        target.set_value(jax.make_array_from_callback(whole.shape, sharding, lambda index, whole=whole: whole[index]))
    if unread:
        raise UserError(f"audio encoder weights: {len(unread)} tensors are not of this encoder: {sorted(unread)[:5]}")
    if targets:
        raise ValueError(f"the name table lacks {sorted(targets)}")
    return nnx.merge(graph, state)


def tensors_of(
    config: OmniConfig | AFWhisperConfig, arrays: Mapping[str, Float[np.ndarray, "..."]]
) -> dict[str, Float[np.ndarray, "..."]]:
    """An encoder's parameters under Hugging Face's names, as `load_state` takes them. arrays: by path in the module."""
    tensors = {}
    for hf, ours, reverse in table_of(config):
        layers = arrays[ours] if "{layer}" in hf else [arrays[ours]]
        for layer, array in enumerate(layers):
            tensors[hf.format(layer=layer)] = np.ascontiguousarray(array.T if reverse else array)
    return tensors
