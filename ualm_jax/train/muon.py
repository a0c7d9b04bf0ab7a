"""Muon: a matrix of a layer moves along the orthogonal matrix that is nearest to its momentum.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. Steps have the size of Adam's (an RMS of
0.2), so that both take the same learning rate: Liu et al., "Muon is Scalable for LLM Training", 2025, eq. 4.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float32

from ualm_jax.models.paths import map_with_paths

MUON, OTHERS = "muon", "others"
_LAYERS = "decoder.layers."
_INPUT_AXES = {"q_kernel": 1, "k_kernel": 1, "v_kernel": 1, "o_kernel": 3, "gate": 1, "up": 1, "down": 1}
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
_RMS = 0.2
_TOGETHER = 1 << 22  # numbers of matrices that are computed at a time: a matrix of a few hundred leaves a GPU idle


class MuonState(NamedTuple):
    """momentum: like the parameters."""

    momentum: Any


def kinds(params: Any) -> Any:
    """MUON for the matrices of the decoder's layers, OTHERS for embeddings, heads, biases, norms and all else."""

    def kind(path: str, leaf: Array) -> str:
        return MUON if path.startswith(_LAYERS) and path.rpartition(".")[2] in _INPUT_AXES else OTHERS

    return map_with_paths(kind, params)


def scale_by_muon() -> optax.GradientTransformation:
    """Gradients of matrices of layers, [L, inputs..., outputs...] each, to updates of an RMS of 0.2."""

    def init(params: Any) -> MuonState:
        return MuonState(jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: MuonState, params: Any = None) -> tuple[Any, MuonState]:
        def moved(momentum: Array, grad: Array) -> Array:
            return _MOMENTUM * momentum + (1 - _MOMENTUM) * grad

        momentum = jax.tree.map(moved, state.momentum, grads)
        return map_with_paths(_updates, jax.tree.map(moved, momentum, grads)), MuonState(momentum)

    return optax.GradientTransformation(init, update)


def _updates(path: str, stack: Float32[Array, "L ..."]) -> Float32[Array, "L ..."]:
    """One layer after another where matrices are large: each device gathers the whole of one at a time, not of all."""
    inputs = math.prod(stack.shape[1 : 1 + _INPUT_AXES[path.rpartition(".")[2]]])
    sharding = PartitionSpec(*jax.typeof(stack).sharding.spec[1:])

    def one(part: Float32[Array, "..."]) -> Float32[Array, "..."]:
        matrix = jax.sharding.reshard(part, PartitionSpec()).reshape(inputs, -1)
        scale = _RMS * max(matrix.shape) ** 0.5
        return jax.sharding.reshard((scale * orthogonal(matrix)).reshape(part.shape), sharding)

    return jax.lax.map(one, stack, batch_size=max(_TOGETHER // stack[0].size, 1))


def orthogonal(matrix: Float32[Array, "M N"]) -> Float32[Array, "M N"]:
    """Its singular vectors, with singular values between about 0.7 and 1.2 in the place of its own: five Newton-Schulz
    iterations."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (jnp.linalg.norm(x) + 1e-8)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T
