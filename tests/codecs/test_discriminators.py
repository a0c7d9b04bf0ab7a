"""Discriminators: they can tell decoded sound from real, and what they say has gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.sounds import sounds

from ualm_jax.codecs.discriminators import (
    DiscriminatorConfig,
    conv2d,
    discriminate,
    feature_matching,
    init_discriminators,
    verdict_loss,
)
from ualm_jax.errors import UserError

CONFIG = DiscriminatorConfig(periods=(2, 3), windows=(128,), width=2)


@pytest.fixture(scope="module")
def pair():
    """Tones, and what is left of them in a quarter of the bits."""
    wanted = jnp.stack([jnp.asarray(wav[:2000]) for wav in sounds(0.5).values()])[..., None]
    return wanted + 0.05 * jax.random.normal(jax.random.key(0), wanted.shape), wanted


def test_there_is_a_verdict_of_each_period_and_of_each_band(pair):
    params = init_discriminators(CONFIG, 1, 0)
    found = jax.eval_shape(lambda params, wav: discriminate(params, CONFIG, wav), params, pair[1])
    assert len(found) == 2 + 5 and all(layers[-1].shape[-1] == 1 for layers in found)


def test_a_convolution_and_its_gradients_are_those_of_xla():
    """Layers of periods and of bands, stretches that strides do not divide, one narrower than the kernel."""
    cases = [
        ((2, 2, 17, 1), (1, 5, 1, 8), 3),
        ((2, 3, 13, 8), (3, 9, 8, 8), 2),
        ((2, 3, 3, 2), (3, 9, 2, 4), 1),
        ((2, 3, 6, 5), (3, 3, 5, 1), 1),
    ]

    def plain(x, kernel, stride):
        padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
        return jax.lax.conv_general_dilated(x, kernel, (1, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    @jax.jit
    def computed(arrays):
        results = []
        for (x, kernel), (_, _, stride) in zip(arrays, cases, strict=True):
            for conv in (conv2d, plain):
                out, pull = jax.vjp(lambda x, kernel: conv(x, kernel, stride), x, kernel)  # noqa: B023
                results.append((out, *pull(jnp.cos(jnp.arange(out.size)).reshape(out.shape))))
        return results

    draws = np.random.default_rng(0)
    results = computed([[draws.normal(size=size).astype(np.float32) for size in case[:2]] for case in cases])
    for ours, theirs in zip(results[::2], results[1::2], strict=True):
        for mine, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, expected, atol=1e-5 * np.abs(expected).max())


def test_they_learn_to_tell_made_from_real(pair):
    made, real = pair
    optimizer = optax.adam(3e-3)
    params = jax.tree.map(jnp.asarray, init_discriminators(CONFIG, 1, 0))

    def loss(params):
        return verdict_loss(discriminate(params, CONFIG, real), True) + verdict_loss(
            discriminate(params, CONFIG, made), False
        )

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    state, values = optimizer.init(params), []
    for _ in range(60):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.75 * values[0]


def test_feature_matching_is_zero_for_equal_sounds_and_counts_layers_by_their_size():
    layers = [[jnp.full((2, 3), 2.0), jnp.full((2, 3), 100.0), jnp.zeros((2, 1))]]
    assert feature_matching(layers, layers) == 0.0
    other = [[jnp.full((2, 3), 3.0), jnp.full((2, 3), 150.0), jnp.ones((2, 1))]]
    assert float(feature_matching(other, layers)) == pytest.approx(0.5, rel=1e-3)


def test_verdicts_are_least_squares():
    found = [[jnp.zeros(3), jnp.array([0.5, 1.5])], [jnp.zeros(3), jnp.array([0.0])]]
    assert float(verdict_loss(found, True)) == pytest.approx((0.25 + 1.0) / 2)
    assert float(verdict_loss(found, False)) == pytest.approx(((0.25 + 2.25) / 2 + 0.0) / 2)


def test_parameters_are_the_same_everywhere():
    jax.tree.map(np.testing.assert_array_equal, init_discriminators(CONFIG, 2, 5), init_discriminators(CONFIG, 2, 5))


def test_no_discriminator_at_all_is_refused():
    with pytest.raises(UserError, match="both empty"):
        DiscriminatorConfig(periods=(), windows=())
