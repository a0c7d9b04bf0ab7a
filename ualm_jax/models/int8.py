"""Layers with 8-bit weights, for generating: a step of decoding reads half the bytes."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ualm_jax.models.ualm import UALM

# The axes of each kernel, behind the leading axis of layers, that a product sums over.
INPUTS = {
    "attention": {"q_kernel": (1,), "k_kernel": (1,), "v_kernel": (1,), "o_kernel": (1, 2, 3)},
    "mlp": {"gate": (1,), "up": (1,), "down": (1,)},
}


class Int8Kernel(nnx.Module):
    """A kernel as integers from -127 to 127 and one float32 scale per layer and output; stands where a Param stood."""

    def __init__(self, kernel: Float[Array, "L ..."], inputs: tuple[int, ...]):
        kernel = kernel.astype(jnp.float32)
        largest = jnp.max(jnp.abs(kernel), axis=inputs, keepdims=True)
        scale = jnp.where(largest > 0, largest, 1) / 127
        self.values = nnx.Param(jnp.round(kernel / scale).astype(jnp.int8))
        self.scale = nnx.Param(scale)

    def astype(self, dtype) -> Array:
        """The kernel again, each weight off by at most half a step."""
        return (self.values.astype(jnp.float32) * self.scale[...]).astype(dtype)


@jax.jit
def with_int8_layers(model: UALM) -> UALM:
    """`model` with the layers' kernels in 8 bits, rounded to nearest; embeddings, biases, norms and heads stay."""
    layers = model.decoder.layers
    for part, kernels in INPUTS.items():
        module = getattr(layers, part)
        for name, inputs in kernels.items():
            setattr(module, name, Int8Kernel(getattr(module, name)[...], inputs))
    return model
