"""A norm with a bounded gradient: the same values, the same gradients but where there is hardly anything to norm."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from helpers.golden_model import ARCHITECTURE, EXECUTION
from helpers.golden_steps import rows

from ualm_jax.models.norm import LARGEST_SLOPE, rms_norm
from ualm_jax.models.ualm import UALM
from ualm_jax.train.objectives.next_token import next_token

EPS = 1e-6


def both(x, scale, g):
    """Value and gradients of x and scale, exact and bounded."""
    found = []
    for gradient in ("exact", "bounded"):
        value, pull = jax.vjp(lambda x, scale, gradient=gradient: rms_norm(x, scale, EPS, gradient), x, scale)
        found.append((value, *pull(g)))
    return found


def test_values_are_the_same_bits_and_gradients_differ_only_where_the_slope_is_steeper():
    rng = np.random.default_rng(0)
    sizes = np.array([0.0, 1e-4, 1e-2, 0.03, 1.0])[:, None]
    x, g = (jnp.asarray(rng.standard_normal((5, 16)), jnp.float32) for _ in range(2))
    x, scale = x * sizes / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True)), jnp.linspace(0.5, 1.5, 16)
    (value, dx, dscale), (other, bounded, same) = both(x, scale, g)
    np.testing.assert_array_equal(other, value)
    np.testing.assert_allclose(same, dscale, rtol=1e-6)
    share = np.minimum(1, LARGEST_SLOPE * np.sqrt(sizes**2 + EPS))
    np.testing.assert_allclose(bounded, dx * share, rtol=1e-5)
    np.testing.assert_allclose(dx[0], 1000 * scale * g[0], rtol=1e-5)
    np.testing.assert_allclose(bounded[0], 50 * scale * g[0], rtol=1e-5)
    assert (share[3:] == 1).all() and (share[:3] < 1).all()


def test_a_fresh_model_whose_condition_is_dropped_has_gradients_of_an_ordinary_size(golden):
    batch = jax.tree.map(jnp.asarray, rows(golden))
    batch = batch._replace(features=None, feature_index=None, tokens=batch.tokens.at[:, :12].set(0))
    norms = {}
    for gradient in ("exact", "bounded"):
        execution = dataclasses.replace(EXECUTION, norm_gradient=gradient)
        structure, params = nnx.split(jax.jit(lambda e=execution: UALM(ARCHITECTURE, e, nnx.Rngs(0)))())
        grad = jax.jit(jax.grad(lambda p, s=structure: next_token(nnx.merge(s, p), batch)["loss"].value()))(params)
        norms[gradient] = float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grad))))
    assert norms["exact"] > 20 * norms["bounded"] and norms["bounded"] < 20, norms
