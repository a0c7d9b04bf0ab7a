"""A loss of several means, each with its own count: however a step is cut, the gradient is that of the whole."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ualm_jax.train.objectives import Mean, values
from ualm_jax.train.step import make_train_step, state_from

WEIGHTS = {"squared": 1.5, "cubed": 0.25, "never": 7.0}


class Line(nnx.Module):
    def __init__(self):
        self.slope = nnx.Param(jnp.float32(0.5))


@dataclasses.dataclass(frozen=True)
class TwoPowers:
    """Of the rows [B] of kind 1 the squares, of kind 2 the cubes; of kind 3 there are none."""

    weights: Mapping[str, float]

    def counts(self, batch):
        return {
            name: jnp.sum(batch["kind"] == kind).astype(jnp.float32)
            for kind, name in enumerate(("squared", "cubed", "never"), 1)
        }

    def __call__(self, model, batch):
        error = model.slope[...] * batch["x"] - 1
        counts = self.counts(batch)
        powers = {"squared": error**2, "cubed": jnp.abs(error) ** 3, "never": error}
        return {
            name: Mean(jnp.sum(jnp.where(batch["kind"] == kind, powers[name], 0)), counts[name])
            for kind, name in enumerate(powers, 1)
        }


ROWS = {
    "x": np.random.default_rng(0).standard_normal(12).astype(np.float32),
    "kind": np.array([1, 1, 1, 2, 1, 0, 1, 1, 1, 1, 2, 0], np.int32),  # cut in four, two parts have no cubes
}


def independent(slope, weights):
    error = slope * ROWS["x"] - 1
    squares, cubes = error[ROWS["kind"] == 1] ** 2, jnp.abs(error[ROWS["kind"] == 2]) ** 3
    return weights["squared"] * squares.mean() + weights["cubed"] * cubes.mean()


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("order", [1, -1])
def test_a_loss_of_several_means_has_the_gradient_of_the_whole_batch(microbatches, order):
    weights = dict(list(WEIGHTS.items())[::order])
    structure, params = nnx.split(Line())
    optimizer, objective = optax.sgd(1.0), TwoPowers(weights)
    batch = jax.tree.map(lambda rows: jnp.asarray(rows.reshape(microbatches, -1)), ROWS)
    state, metrics = make_train_step(structure, objective, optimizer)(state_from(params, optimizer), batch)
    loss, slope = jax.value_and_grad(independent)(jnp.float32(0.5), weights)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(state.params["slope"][...], 0.5 - slope, rtol=1e-6)


def test_what_is_reported_as_loss_is_the_weighted_sum_of_the_means():
    sums = {name: Mean(jnp.float32(total), jnp.float32(2)) for name, total in (("squared", 4), ("cubed", 8))}
    found = values(TwoPowers({"squared": 1.0, "cubed": 0.5}), sums)
    assert {name: float(value) for name, value in found.items()} == {"squared": 2, "cubed": 4, "loss": 4}
