"""Muon: matrices of layers move along orthogonal matrices, all else by AdamW, on any mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.golden_model import ARCHITECTURE, EXECUTION

from ualm_jax.models.paths import map_with_paths
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.muon import kinds, orthogonal
from ualm_jax.train.optimizer import OptimizerConfig, make_optimizer

ADAMW = OptimizerConfig(peak_lr=1e-2, warmup_steps=0, schedule="constant", weight_decay=0.1)
MUON = dataclasses.replace(ADAMW, kind="muon")


def quintic(values):
    """Jordan et al., 2024: what an iteration makes of each singular value."""
    return 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_singular_vectors_stay_and_singular_values_go_through_the_polynomial(shape):
    matrix = np.random.default_rng(0).standard_normal(shape)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.linalg.norm(matrix)
    for _ in range(5):
        values = quintic(values)
    assert values.min() > 0.6 and values.max() < 1.25
    np.testing.assert_allclose(orthogonal(jnp.float32(matrix)), left * values @ right, atol=1e-5)


def updates_of(config, mesh):
    """Two steps' updates of a model's parameters, from gradients that do not depend on the mesh."""
    with jax.set_mesh(mesh):
        params = nnx.state(UALM(ARCHITECTURE, EXECUTION, nnx.Rngs(0)), nnx.Param)
        optimizer = make_optimizer(config)

        def grads(seed):
            rng = np.random.default_rng(seed)
            leaves, structure = jax.tree.flatten(params)
            made = (jax.device_put(rng.standard_normal(x.shape, np.float32), x.sharding) for x in leaves)
            return jax.tree.unflatten(structure, list(made))

        update = jax.jit(optimizer.update)
        state = jax.jit(optimizer.init)(params)
        _, state = update(grads(0), state, params)
        updates, _ = update(grads(1), state, params)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
        return params, jax.device_get(updates)


@pytest.fixture(scope="module")
def single():
    return updates_of(MUON, make_mesh(MeshConfig(), jax.devices()[:1]))


def test_what_is_no_matrix_of_a_layer_moves_as_with_adamw(single):
    params, updates = single
    _, by_adamw = updates_of(ADAMW, make_mesh(MeshConfig(), jax.devices()[:1]))
    chosen = {}
    map_with_paths(lambda path, kind: chosen.__setitem__(path, kind), kinds(params))
    assert {path.rpartition(".")[2] for path, kind in chosen.items() if kind == "muon"} == {
        *("q_kernel", "k_kernel", "v_kernel", "o_kernel", "gate", "up", "down")
    }

    def compare(path, one, other):
        assert (chosen[path] == "others") == np.array_equal(one, other), path

    map_with_paths(compare, updates, by_adamw)


def test_an_update_of_a_matrix_has_the_size_of_adams(single):
    params, updates = single
    decayed = updates["decoder"]["layers"]["mlp"]["up"][...] + 1e-2 * 0.1 * np.asarray(
        params["decoder"]["layers"]["mlp"]["up"][...]
    )
    for layer in decayed:
        assert 0.15 < np.sqrt(np.mean(layer**2)) / 1e-2 < 0.25


@pytest.mark.parametrize("together", [1, 64 * 160 * 2])
def test_how_many_layers_are_computed_at_a_time_changes_nothing(together, single, monkeypatch):
    """Of three layers one after the other, or those of MLPs two at a time and one more."""
    monkeypatch.setattr("ualm_jax.train.muon._TOGETHER", together)
    _, updates = updates_of(MUON, make_mesh(MeshConfig(), jax.devices()[:1]))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), single[1], updates)


def test_a_sharded_update_is_that_of_one_device(single):
    _, sharded = updates_of(MUON, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), single[1], sharded)
