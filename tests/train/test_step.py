"""The training step: what must not change it, and what it must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.golden_model import ARCHITECTURE
from helpers.golden_steps import EXECUTION, OPTIMIZER, fresh_state, rows

from ualm_jax.models.ualm import abstract_model
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.next_token import next_token
from ualm_jax.train.optimizer import learning_rate, make_optimizer
from ualm_jax.train.step import make_train_step


def run_steps(golden, mesh, *, microbatches=1, steps=3):
    with jax.set_mesh(mesh):
        optimizer = make_optimizer(OPTIMIZER)
        state = fresh_state(EXECUTION, optimizer)
        step = make_train_step(abstract_model(ARCHITECTURE, EXECUTION)[0], next_token, optimizer)
        batch = shard_batch(rows(golden), mesh, microbatches)
        metrics = []
        for _ in range(steps):
            state, values = step(state, batch)
            metrics.append(jax.tree.map(np.asarray, values))
    return state, metrics, step


@pytest.fixture(scope="module")
def one_device(golden):
    return run_steps(golden, make_mesh(MeshConfig(), jax.devices()[:1]))


def assert_same_run(run, expected):
    for metrics, wanted in zip(run[1], expected[1], strict=True):
        for name in ("loss", "grad_norm", "accuracy/stream", "tokens"):
            np.testing.assert_allclose(metrics[name], wanted[name], rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(run[0]), jax.tree.leaves(expected[0]), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-6)


def test_four_microbatches_equal_one_big_batch(golden, one_device):
    assert_same_run(run_steps(golden, make_mesh(MeshConfig(), jax.devices()[:1]), microbatches=4), one_device)


def test_eight_devices_train_as_one_does(golden, one_device):
    assert_same_run(run_steps(golden, make_mesh(MeshConfig(2, 2, 2)), microbatches=2), one_device)


def test_the_same_run_twice_is_the_same_bit_for_bit(golden, one_device):
    again = run_steps(golden, make_mesh(MeshConfig(), jax.devices()[:1]))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), again[0], one_device[0])


def test_the_step_compiles_once(one_device):
    assert one_device[2]._cache_size() == 1


def test_the_optimiser_counts_the_steps_taken(one_device):
    state = one_device[0]
    counts = [int(leaf) for leaf in jax.tree.leaves(state.opt_state) if jnp.issubdtype(leaf.dtype, jnp.integer)]
    assert counts and set(counts) == {3} and int(state.step) == 3


def test_training_lowers_the_loss_and_reaches_every_parameter(golden, one_device):
    losses = [float(metrics["loss"]) for metrics in one_device[1]]
    assert losses[-1] < losses[0]
    fresh, _, _ = run_steps(golden, make_mesh(MeshConfig(), jax.devices()[:1]), steps=0)
    for path, before in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(fresh.params)):
        after = nnx.to_pure_dict(one_device[0].params)
        for key in path:
            after = after[key.key]
        assert np.any(np.asarray(before) != np.asarray(after)), jax.tree_util.keystr(path)


def test_the_learning_rate_warms_up_and_falls():
    schedule = learning_rate(OPTIMIZER)
    values = [float(schedule(step)) for step in range(12)]
    assert values[0] == 0 and values[2] == pytest.approx(1e-2) and values[10] == pytest.approx(0, abs=1e-9)
    assert all(a > b for a, b in zip(values[2:10], values[3:11], strict=True))
