"""The golden checkpoint as our model: tests use it, nothing else does."""

import functools

import jax
import numpy as np
import torch
from flax import nnx

from ualm_jax.models.config import Architecture, DecoderConfig, Execution
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.tokens.vocabulary import Vocabulary

ARCHITECTURE = Architecture(
    decoder=DecoderConfig(num_layers=3, width=64, num_heads=4, num_kv_heads=2, mlp_dim=160),
    vocabulary=Vocabulary(text_size=384, codebook_size=32),
    feature_width=48,
)
EXECUTION = Execution(compute_dtype="float32", loss_chunk=16)


def reference_tensors(golden_dir) -> dict[str, np.ndarray]:
    path = golden_dir / "checkpoints" / "step_100" / "global_step100" / "mp_rank_00_model_states.pt"
    state = torch.load(path, weights_only=True)["module"]
    return {name: tensor.numpy() for name, tensor in state.items()}


def to_ours(tensors: dict[str, np.ndarray]) -> dict:
    """Reference-named arrays (weights or gradients) as our tree."""
    D, K, G, H, L = 64, 2, 2, 16, 3

    def stack(name, shape, transpose=True):
        arrays = [tensors[f"model.layers.{i}.{name}"] for i in range(L)]
        return np.stack([(a.T if transpose else a).reshape(shape) for a in arrays])

    head = tensors["lm_head.weight"].T
    return {
        "embed": tensors["model.embed_tokens.weight"],
        "stream_embed": tensors["stream_emb.weight"],
        "text_head": head[:, :640],
        "audio_head": head[:, 640:].reshape(D, 8, 33),
        "adapter": {
            "kernel": tensors["adaptor.continuous_audio.weight"].T,
            "bias": tensors["adaptor.continuous_audio.bias"],
        },
        "decoder": {
            "norm": tensors["model.norm.weight"],
            "layers": {
                "attention_norm": stack("input_layernorm.weight", (D,)),
                "mlp_norm": stack("post_attention_layernorm.weight", (D,)),
                "attention": {
                    "q_kernel": stack("self_attn.q_proj.weight", (D, K, G, H)),
                    "q_bias": stack("self_attn.q_proj.bias", (K, G, H)),
                    "k_kernel": stack("self_attn.k_proj.weight", (D, K, H)),
                    "k_bias": stack("self_attn.k_proj.bias", (K, H)),
                    "v_kernel": stack("self_attn.v_proj.weight", (D, K, H)),
                    "v_bias": stack("self_attn.v_proj.bias", (K, H)),
                    "o_kernel": stack("self_attn.o_proj.weight", (K, G, H, D)),
                },
                "mlp": {
                    "gate": stack("mlp.gate_proj.weight", (D, 160)),
                    "up": stack("mlp.up_proj.weight", (D, 160)),
                    "down": stack("mlp.down_proj.weight", (160, D)),
                },
            },
        },
    }


@functools.cache
def _arrays(golden_dir) -> dict:
    return to_ours(reference_tensors(golden_dir))


@functools.cache
def _abstract(execution: Execution, mesh: jax.sharding.Mesh) -> tuple[nnx.GraphDef, nnx.State]:
    """On `mesh`, which is the current one."""
    return abstract_model(ARCHITECTURE, execution)


def load(golden_dir, execution: Execution = EXECUTION) -> UALM:
    """The golden model on the current mesh."""
    mesh = jax.sharding.get_mesh()

    def put(path, param):
        value = _arrays(golden_dir)
        for key in path:
            value = value[getattr(key, "key", None)] if isinstance(value, dict) else value
        assert value.shape == param.shape, path
        return jax.device_put(np.array(value), jax.NamedSharding(mesh, param.sharding.spec))

    structure, params = _abstract(execution, mesh)
    return nnx.merge(structure, jax.tree.map_with_path(put, params))


def batch_of(golden: dict[str, np.ndarray], name: str):
    """One golden conversation, or the padded batch of four, as a Batch."""
    from ualm_jax.tokens.types import Batch

    tokens, weights = golden[f"{name}/sequence"], golden[f"{name}/loss_mask"]
    if tokens.ndim == 2:
        tokens, weights = tokens[None], weights[None]
    B, T, _ = tokens.shape
    lengths = {"gen": 51, "und": 48, "txt": 24, "reason": 63}
    order = [name] if name in lengths else list(lengths)
    inside = np.arange(T)[None] < np.array([lengths[n] for n in order])[:, None]
    index = np.full((B, T), -1, np.int32)
    features = np.zeros((B, 21, 48), np.float32)
    if "und" in order:
        row = order.index("und")
        index[row, 16:37] = np.arange(21)
        features[row] = golden["und/features"]
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
    batch = Batch(tokens.astype(np.int32), weights, inside.astype(np.int32), positions, features, index)
    return jax.device_put(batch)  # at once: each array by itself would be a small program
