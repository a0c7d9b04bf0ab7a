"""What `ualm train` does, against the same steps written out without any of its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.run_config import get_config

from ualm_jax.data.dataset.folder import open_dataset
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.mapping import from_mapping, to_mapping
from ualm_jax.models.cross_entropy import cross_entropy
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.config import RunConfig
from ualm_jax.train.loop import fit
from ualm_jax.train.optimizer import make_optimizer
from ualm_jax.train.precision import apply_updates
from ualm_jax.train.stages.run import language_model
from ualm_jax.train.workdir import parts_of_run, write_workdir

STEPS = 20


@pytest.fixture(scope="module")
def config(dataset) -> RunConfig:
    values = get_config()
    values.data.directory = str(dataset)
    values.data.cfg_dropout = 0.3
    values.train.steps = STEPS
    return from_mapping(RunConfig, values.to_dict())


def plain_steps(config: RunConfig):
    """Parameters after all steps: loss, metrics and AdamW in one function, as version 0.1 had them."""
    model = jax.jit(lambda: UALM(config.model, config.execution, nnx.Rngs(config.train.seed)))()
    graph, params = nnx.split(model, nnx.Param)
    optimizer = make_optimizer(config.optimizer)

    def after(x):
        return jnp.pad(x[:, 1:], [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2))

    def loss(params, batch):
        model = nnx.merge(graph, params)
        hidden = model(batch)
        weights = after(batch.loss_weights) * (batch.segment_ids == after(batch.segment_ids))[:, :, None]
        heads = model.text_head[...], model.audio_head[...], model.stream_bias(hidden.dtype)
        losses, correct = cross_entropy(hidden, *heads, after(batch.tokens), config.execution.loss_chunk)
        counted = (weights != 0).astype(jnp.float32)
        total = jnp.sum(losses * weights)
        hits = jnp.sum(correct * counted, axis=(0, 1)), jnp.sum(counted, axis=(0, 1))
        return total, (total, jnp.sum(counted[:, :, 0]), hits)

    @jax.jit
    def step(state, batch):
        count, params, moments = state
        grads, (total, positions, (correct, counted)) = jax.grad(loss, has_aux=True)(params, batch)
        positions = jnp.maximum(positions, 1)
        grads = jax.tree.map(lambda grad: grad / positions, grads)
        updates, moments = optimizer.update(grads, moments, params)
        params = apply_updates(params, updates, count)
        metrics = total / positions, correct / jnp.maximum(counted, 1), jnp.sum(batch.segment_ids > 0)
        return (count + 1, params, moments), (metrics, [optax.tree.norm(tree) for tree in (grads, params, updates)])

    state = jnp.int32(0), params, jax.jit(optimizer.init)(params)
    loader = make_loader(config.data, config.model.vocabulary)
    for _ in range(config.train.steps):
        batch, _ = next(loader)
        state, _ = step(state, jax.tree.map(jnp.asarray, batch))
    loader.close()
    return state[1]


@pytest.mark.slow  # of its parts: test_loss.py has the loss, test_step.py the step, test_fit.py the loop
def test_twenty_steps_through_the_loop_are_those_of_a_plain_one_bit_for_bit(config, fused_programs, tmp_path):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    parts = parts_of_run(open_dataset(config.data.directory).directory, None, tmp_path)
    write_workdir(to_mapping(config), parts, tmp_path, sources=[], resumed=False)
    with jax.set_mesh(mesh):
        run = language_model(config, parts, tmp_path, mesh)
        last = {}
        original = run.step

        def step(state, batch):
            state, metrics = original(state, batch)
            last["params"] = jax.tree.map(np.array, nnx.to_pure_dict(state.params))  # before the next step donates it
            return state, metrics

        object.__setattr__(run, "step", step)
        assert fit(run) == STEPS
        plain = nnx.to_pure_dict(plain_steps(config))
    for path, wanted in jax.tree_util.tree_leaves_with_path(plain):
        found = last["params"]
        for key in path:
            found = found[key.key]
        np.testing.assert_array_equal(found, np.asarray(wanted), err_msg=jax.tree_util.keystr(path))
