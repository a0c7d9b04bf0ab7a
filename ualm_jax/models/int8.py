"""Layers with 8-bit weights, for generating: a step of decoding reads half the bytes."""

import jax

from ualm_jax.models.linear import Int8Kernel
from ualm_jax.models.ualm import UALM

# The axes of each kernel, behind the leading axis of layers, that a product sums over.
INPUTS = {
    "attention": {"q_kernel": (1,), "k_kernel": (1,), "v_kernel": (1,), "o_kernel": (1, 2, 3)},
    "mlp": {"gate": (1,), "up": (1,), "down": (1,)},
}


def round_layers(model: UALM) -> None:
    """Changes `model`: its layers' kernels in 8 bits, rounded to nearest; embeddings, biases, norms and heads stay. No
    more than one kernel is in memory twice at any time."""
    for part, kernels in INPUTS.items():
        module = getattr(model.decoder.layers, part)
        for name, inputs in kernels.items():
            setattr(module, name, int8_kernel(getattr(module, name)[...], inputs))


int8_kernel = jax.jit(Int8Kernel, static_argnums=1)
