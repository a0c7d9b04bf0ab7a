"""A norm with a bounded gradient: the same values, the same gradients but where there is hardly anything to norm."""

import dataclasses
import functools

import jax
import numpy as np
import optax
from flax import nnx
from helpers import golden_model
from helpers.golden_model import ARCHITECTURE, EXECUTION

from ualm_jax.models.norm import LARGEST_SLOPE, rms_norm
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.train.objectives.next_token import next_token

EPS = 1e-6


def both(x, scale, g):
    """Value and gradients of x and scale, exact and bounded."""

    @functools.partial(jax.jit, static_argnames="gradient")
    def one(x, scale, g, gradient):
        value, pull = jax.vjp(lambda x, scale: rms_norm(x, scale, EPS, gradient), x, scale)
        return value, *pull(g)

    return [one(x, scale, g, gradient) for gradient in ("exact", "bounded")]


def test_values_are_the_same_bits_and_gradients_differ_only_where_the_slope_is_steeper():
    rng = np.random.default_rng(0)
    sizes = np.array([0.0, 1e-4, 1e-2, 0.03, 1.0])[:, None]
    x, g = (rng.standard_normal((5, 16)).astype(np.float32) for _ in range(2))
    x = (x * sizes / np.sqrt(np.mean(x**2, -1, keepdims=True))).astype(np.float32)
    scale = np.linspace(0.5, 1.5, 16, dtype=np.float32)
    (value, dx, dscale), (other, bounded, same) = both(x, scale, g)
    np.testing.assert_array_equal(other, value)
    np.testing.assert_allclose(same, dscale, rtol=1e-6)
    share = np.minimum(1, LARGEST_SLOPE * np.sqrt(sizes**2 + EPS))
    np.testing.assert_allclose(bounded, dx * share, rtol=1e-5)
    np.testing.assert_allclose(dx[0], 1000 * scale * g[0], rtol=1e-5)
    np.testing.assert_allclose(bounded[0], 50 * scale * g[0], rtol=1e-5)
    assert (share[3:] == 1).all() and (share[:3] < 1).all()


def test_a_fresh_model_whose_condition_is_dropped_has_gradients_of_an_ordinary_size(golden):
    batch = golden_model.batch_of(golden, "batch_of_four")
    batch = batch._replace(features=None, feature_index=None, tokens=batch.tokens.at[:, :12].set(0))
    params = nnx.state(jax.jit(lambda: UALM(ARCHITECTURE, EXECUTION, nnx.Rngs(0)))(), nnx.Param)

    @functools.partial(jax.jit, static_argnames="gradient")
    def norm(params, batch, gradient):
        structure, _ = abstract_model(ARCHITECTURE, dataclasses.replace(EXECUTION, norm_gradient=gradient))
        grad = jax.grad(lambda params: next_token(nnx.merge(structure, params), batch)["loss"].value())
        return optax.global_norm(grad(params))

    norms = {gradient: float(norm(params, batch, gradient)) for gradient in ("exact", "bounded")}
    assert norms["exact"] > 20 * norms["bounded"] and norms["bounded"] < 20, norms
