"""Layers with 8-bit weights: how far off they are, and that everything that uses a model uses them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import golden_model

from ualm_jax.models.int8 import round_layers
from ualm_jax.models.linear import Int8Kernel, apply_kernel
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec


def test_a_weight_is_off_by_at_most_half_a_step_of_its_output():
    kernel = np.random.default_rng(0).standard_normal((2, 6, 3, 4)).astype(np.float32)
    kernel[1, :, 2, 1] = 0
    rounded = np.asarray(Int8Kernel(jnp.asarray(kernel), (1,)).astype(jnp.float32))
    step = np.abs(kernel).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(rounded - kernel) <= 0.5001 * step)
    assert np.all(rounded[1, :, 2, 1] == 0)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 2.0**-8)])
@pytest.mark.parametrize("axes, inputs", [(("embed", "kv_heads"), 1), (("kv_heads", "embed"), 3)])
def test_a_product_with_integers_is_that_with_the_kernel_they_stand_for(axes, inputs, dtype, tolerance):
    """Also where the kernel is split over the devices, along what is summed and along what comes out."""
    rng = np.random.default_rng(0)
    shape = (16, 2, 3, 4) if inputs == 1 else (2, 2, 4, 16)
    kernel = Int8Kernel(jnp.asarray(rng.standard_normal((1, *shape)).astype(np.float32)), tuple(range(1, 1 + inputs)))
    matrix = np.asarray(kernel.astype(jnp.float32))[0].reshape(16, -1)
    x = jnp.asarray(rng.standard_normal((2, 5, 16)), dtype)
    wanted = np.asarray(x.astype(jnp.float32)) @ matrix
    with jax.set_mesh(make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4])):
        kernel.values, kernel.scale = (
            nnx.Param(jax.device_put(np.asarray(part[...])[0], jax.NamedSharding(jax.sharding.get_mesh(), where)))
            for part, where in (
                (kernel.values, spec(axes[0], *[None] * 2, axes[1]) if inputs == 3 else spec(*axes, None, None)),
                (kernel.scale, spec(*[None] * 3, axes[1]) if inputs == 3 else spec(None, axes[1], None, None)),
            )
        )
        split = jax.NamedSharding(jax.sharding.get_mesh(), spec("batch", None, None if inputs == 1 else axes[0]))
        found = jax.jit(lambda x: apply_kernel(x, kernel, axes, inputs=inputs))(jax.device_put(np.asarray(x), split))
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found).astype(np.float32), wanted, atol=tolerance * np.abs(wanted).max())


def rounded_copy(model: UALM) -> UALM:
    model = nnx.clone(model)
    round_layers(model)
    return model


def test_layers_take_a_quarter_of_their_bytes(golden_dir):
    model = golden_model.load(golden_dir)
    layers, rounded = (jax.tree.leaves(m.decoder.layers) for m in (model, rounded_copy(model)))
    size = sum(leaf.nbytes for leaf in layers)
    assert 0.25 < sum(leaf.nbytes for leaf in rounded) / size < 0.30


def test_the_next_tokens_hardly_change(golden_dir, golden):
    """Mean KL in nats of stream 0's next token, at the positions of golden conversations."""
    model = golden_model.load(golden_dir)
    batch = golden_model.batch_of(golden, "batch_of_four")
    real = np.asarray(batch.segment_ids) > 0

    def log_probabilities(model: UALM) -> np.ndarray:
        hidden = jax.jit(lambda model, batch: model(batch))(model, batch)
        return np.asarray(jax.nn.log_softmax(hidden @ model.text_head[...]))[real]

    p, q = log_probabilities(model), log_probabilities(rounded_copy(model))
    kl = np.sum(np.exp(p) * (p - q), axis=-1)
    assert 0 < kl.mean() < 1e-3 and kl.max() < 1e-2


def test_eight_devices_compute_what_one_does(golden_dir, golden):
    hidden = []
    for mesh in (make_mesh(MeshConfig(), jax.devices()[:1]), make_mesh(MeshConfig(2, 1, 2), jax.devices()[:4])):
        with jax.set_mesh(mesh):
            model = rounded_copy(golden_model.load(golden_dir))
            batch = golden_model.batch_of(golden, "batch_of_four")
            hidden.append(np.asarray(jax.jit(lambda model, batch: model(batch))(model, batch)))
    np.testing.assert_allclose(hidden[1], hidden[0], atol=1e-4)
