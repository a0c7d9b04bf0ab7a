"""Layers with 8-bit weights, for generating: a step of decoding reads half the bytes."""

import jax

from ualm_jax.models.linear import Int8Kernel
from ualm_jax.models.ualm import UALM

# The axes of each kernel, behind the leading axis of layers, that a product sums over.
INPUTS = {
    "attention": {"q_kernel": (1,), "k_kernel": (1,), "v_kernel": (1,), "o_kernel": (1, 2, 3)},
    "mlp": {"gate": (1,), "up": (1,), "down": (1,)},
}


@jax.jit
def with_int8_layers(model: UALM) -> UALM:
    """`model` with the layers' kernels in 8 bits, rounded to nearest; embeddings, biases, norms and heads stay."""
    layers = model.decoder.layers
    for part, kernels in INPUTS.items():
        module = getattr(layers, part)
        for name, inputs in kernels.items():
            setattr(module, name, Int8Kernel(getattr(module, name)[...], inputs))
    return model
