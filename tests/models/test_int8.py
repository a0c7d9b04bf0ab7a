"""Layers with 8-bit weights: how far off they are, and that everything that uses a model uses them."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import golden_model

from ualm_jax.models.int8 import Int8Kernel, with_int8_layers
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh


def test_a_weight_is_off_by_at_most_half_a_step_of_its_output():
    kernel = np.random.default_rng(0).standard_normal((2, 6, 3, 4)).astype(np.float32)
    kernel[1, :, 2, 1] = 0
    rounded = np.asarray(Int8Kernel(jnp.asarray(kernel), (1,)).astype(jnp.float32))
    step = np.abs(kernel).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(rounded - kernel) <= 0.5001 * step)
    assert np.all(rounded[1, :, 2, 1] == 0)


def test_layers_take_a_quarter_of_their_bytes(golden_dir):
    model = golden_model.load(golden_dir)
    layers, rounded = (jax.tree.leaves(m.decoder.layers) for m in (model, with_int8_layers(model)))
    size = sum(leaf.nbytes for leaf in layers)
    assert 0.25 < sum(leaf.nbytes for leaf in rounded) / size < 0.30
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model)), "the model itself must not change"


def test_the_next_tokens_hardly_change(golden_dir, golden):
    """Mean KL in nats of stream 0's next token, at the positions of golden conversations."""
    model = golden_model.load(golden_dir)
    batch = golden_model.batch_of(golden, "batch_of_four")
    real = np.asarray(batch.segment_ids) > 0

    def log_probabilities(model: UALM) -> np.ndarray:
        hidden = jax.jit(lambda model, batch: model(batch))(model, batch)
        return np.asarray(jax.nn.log_softmax(hidden @ model.text_head[...]))[real]

    p, q = log_probabilities(model), log_probabilities(with_int8_layers(model))
    kl = np.sum(np.exp(p) * (p - q), axis=-1)
    assert 0 < kl.mean() < 1e-3 and kl.max() < 1e-2


def test_eight_devices_compute_what_one_does(golden_dir, golden):
    hidden = []
    for mesh in (make_mesh(MeshConfig(), jax.devices()[:1]), make_mesh(MeshConfig(2, 1, 2), jax.devices()[:4])):
        with jax.set_mesh(mesh):
            model = with_int8_layers(golden_model.load(golden_dir))
            batch = golden_model.batch_of(golden, "batch_of_four")
            hidden.append(np.asarray(jax.jit(lambda model, batch: model(batch))(model, batch)))
    np.testing.assert_allclose(hidden[1], hidden[0], atol=1e-4)
