"""bfloat16 where memory is short: states that are rounded, parameters that do not stand still."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.golden_model import ARCHITECTURE, batch_of
from helpers.golden_steps import EXECUTION, OPTIMIZER, fresh_state

from ualm_jax.errors import UserError
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.next_token import next_token
from ualm_jax.train.optimizer import OptimizerConfig, make_optimizer
from ualm_jax.train.precision import apply_updates, stochastic_round
from ualm_jax.train.step import init_state, make_train_step

HALF = dataclasses.replace(OPTIMIZER, state_dtype="bfloat16")


def train(golden, execution, optimizer_config, *, mesh=None, steps=3):
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        optimizer = make_optimizer(optimizer_config)
        state, step = (
            fresh_state(execution, optimizer),
            make_train_step(abstract_model(ARCHITECTURE, execution)[0], next_token, optimizer),
        )
        batch, losses = shard_batch(jax.device_get(batch_of(golden, "batch_of_four")), mesh, 1), []
        for _ in range(steps):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
    return state, losses


@pytest.fixture(scope="module")
def run(golden):
    """`train`, once for the same arguments."""
    return functools.cache(functools.partial(train, golden))


@pytest.mark.parametrize("param_dtype, state_dtype", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_states_have_their_own_dtype_from_the_first_step_to_the_last(param_dtype, state_dtype, run):
    execution = dataclasses.replace(EXECUTION, param_dtype=param_dtype)
    optimizer_config = dataclasses.replace(OPTIMIZER, state_dtype=state_dtype)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        before = jax.eval_shape(
            lambda: init_state(lambda: UALM(ARCHITECTURE, execution, nnx.Rngs(0)), make_optimizer(optimizer_config))
        )
    after, losses = run(execution, optimizer_config, steps=20 if state_dtype == "bfloat16" else 3)  # 20 as below
    assert losses[-1] < losses[0]
    for tree, dtype in ((before.params, param_dtype), (before.opt_state, state_dtype)):
        floats = {leaf.dtype.name for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert floats == {dtype}
    assert jax.tree.map(lambda a: a.dtype, before) == jax.tree.map(lambda a: a.dtype, after)


def test_rounded_moments_train_almost_as_well(run):
    (_, whole), (_, half) = (run(EXECUTION, config, steps=20) for config in (OPTIMIZER, HALF))
    np.testing.assert_allclose(half, whole, rtol=0.01)


@pytest.mark.slow  # in float32, and a run at a time, test_step.py has it
def test_the_same_run_twice_is_the_same_in_bfloat16_and_on_eight_devices(golden):
    execution = dataclasses.replace(EXECUTION, param_dtype="bfloat16")
    (first, losses), (again, _) = (train(golden, execution, HALF) for _ in range(2))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), first, again)
    sharded = train(golden, execution, HALF, mesh=make_mesh(MeshConfig(2, 2, 2)))[1]
    np.testing.assert_allclose(sharded, losses, rtol=2e-2)


def test_rounding_is_to_a_neighbour_and_right_on_average():
    x = (np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-20, 20, 0.04)).astype(np.float32)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        draw = jax.jit(lambda key: stochastic_round(jnp.asarray(x), key))
        draws = np.stack([np.asarray(draw(jax.random.key(n)), np.float32) for n in range(2000)])
    bits = x.view(np.uint32) & np.uint32(0xFFFF0000)
    toward_zero, away = bits.view(np.float32), (bits + np.uint32(0x10000)).view(np.float32)
    assert np.all((draws == toward_zero) | (draws == away))
    assert np.all(np.abs(draws.mean(axis=0, dtype=np.float64) - x) < 0.06 * np.abs(away - toward_zero))


def test_noise_differs_from_place_to_place_and_from_seed_to_seed():
    """Of a million equal numbers at three tenths of the way, three tenths go up, whatever their neighbours do."""
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        x, draw = jnp.full((1000, 1000), 1 + 0.3 / 128, jnp.float32), jax.jit(stochastic_round)
        first, second = (np.asarray(draw(x, jax.random.key(seed)), np.float32) > 1 for seed in range(2))
    assert abs(first.mean() - 0.3) < 0.003 and abs(second.mean() - 0.3) < 0.003
    for one, other in ((first[:-1], first[1:]), (first[:, :-1], first[:, 1:]), (first, second)):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.005


def test_what_bfloat16_holds_and_what_is_not_finite_stay_as_they_are():
    values = jnp.array([0.0, -0.0, 1.0, -2.5, jnp.inf, -jnp.inf, jnp.nan, 3.38e38], jnp.bfloat16)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        rounded = jax.jit(stochastic_round)(values.astype(jnp.float32), jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(rounded, np.float32), np.asarray(values, np.float32))


def test_small_updates_add_up():
    """To nearest, a thousand times 1 + 0.0005 would stay 1."""
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        param, add = jnp.ones(256, jnp.bfloat16), jax.jit(apply_updates)
        for step in range(1000):
            param = add(param, jnp.full(256, 0.0005), jnp.int32(step))
    assert abs(float(param.astype(jnp.float32).mean()) - 1.5) < 0.01


def test_moments_do_not_stand_still():
    """A square of gradients that rises from 1 to 4 is followed at 0.001 a step; to nearest it would stay 1."""
    config = dataclasses.replace(HALF, beta2=0.999, schedule="constant", warmup_steps=0, clip_norm=1e9)
    optimizer, params = make_optimizer(config), {"x": jnp.zeros(256)}
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        state = jax.tree.map(lambda leaf: jnp.ones_like(leaf) if leaf.shape == (256,) else leaf, state)
        for _ in range(700):
            _, state = update({"x": jnp.full(256, 2.0)}, state, params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (256,)]
    assert {leaf.dtype.name for leaf in moments} == {"bfloat16"}
    second = max(float(leaf.astype(jnp.float32).mean()) for leaf in moments)
    assert abs(second - (4 - 3 * 0.999**700)) < 0.05


def test_a_dtype_that_no_state_has_is_refused():
    with pytest.raises(UserError, match="state_dtype must be one of float32, bfloat16, got 'int8'"):
        OptimizerConfig(state_dtype="int8")
