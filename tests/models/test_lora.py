"""Low-rank adapters: fresh ones change nothing, merged ones compute what unmerged ones do, also over 8 bits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import golden_model
from helpers.golden_model import ARCHITECTURE, EXECUTION

from ualm_jax.errors import UserError
from ualm_jax.models.lora import LoraConfig, adapted_params, with_lora, without_lora
from ualm_jax.parallel.mesh import MeshConfig, make_mesh

CONFIG = LoraConfig(rank=2, alpha=8.0, targets=("attention.q_kernel", "attention.o_kernel", "mlp.down"))


apply = jax.jit(lambda model, batch: model(batch))
merged = jax.jit(without_lora)


def hidden(model, batch):
    return np.asarray(apply(model, batch))


@functools.partial(jax.jit, static_argnames="config")
def fresh(model, config=CONFIG):
    return with_lora(model, config, nnx.Rngs(0))


@jax.jit
def filled(model):
    """`model` with adapters that do something: numbers in place of the zeros of every B."""
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path[-1] == "lora_b":
            number = len(str(path))
            spec = jax.typeof(leaf[...]).sharding.spec
            leaf.set_value(0.3 * jax.random.normal(jax.random.key(number), leaf.shape, out_sharding=spec))
    return model


@pytest.fixture(scope="module")
def batch(golden):
    return golden_model.batch_of(golden, "batch_of_four")


@pytest.fixture(scope="module")
def plain(golden_dir, batch):
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        return hidden(golden_model.load(golden_dir), batch)


def test_fresh_adapters_change_no_bit(golden_dir, batch, plain):
    model = fresh(golden_model.load(golden_dir))
    np.testing.assert_array_equal(hidden(model, batch), plain)


@pytest.mark.parametrize("int8", [False, True])
def test_merged_is_unmerged_on_any_mesh(golden_dir, batch, plain, int8):
    config, found = dataclasses.replace(CONFIG, int8_base=int8), []
    for mesh in (make_mesh(MeshConfig(), jax.devices()[:1]), make_mesh(MeshConfig(1, 4, 2))):
        with jax.set_mesh(mesh):
            model = filled(fresh(golden_model.load(golden_dir), config))
            found.append(hidden(model, batch))
            model = merged(model)
            assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
            found.append(hidden(model, batch))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-4)
    assert np.abs(found[0] - plain).max() > 0.01


def test_what_an_adapter_adds_is_alpha_over_rank_times_its_product(golden_dir):
    before = golden_model.load(golden_dir)
    kernel = np.asarray(before.decoder.layers.attention.o_kernel[...])
    model = filled(fresh(before))
    o = model.decoder.layers.attention.o_kernel
    a, b = np.asarray(o.lora_a[...], np.float64), np.asarray(o.lora_b[...], np.float64)
    expected = kernel + 8.0 / 2 * np.einsum("lkghr,lrd->lkghd", a, b)
    np.testing.assert_allclose(merged(model).decoder.layers.attention.o_kernel[...], expected, atol=1e-5)


def test_fresh_adapters_are_those_of_the_seed_whether_the_model_was_random_or_read(golden_dir):
    params = nnx.state(golden_model.load(golden_dir), nnx.Param)
    first, second = (adapted_params(lambda: params, ARCHITECTURE, EXECUTION, CONFIG, seed) for seed in (0, 1))
    flat, other = (dict(nnx.to_flat_state(state)) for state in (first, second))
    assert {path for path in flat if not np.array_equal(flat[path][...], other[path][...])} == {
        path for path in flat if path[-1] == "lora_a"
    }
    bound = 1 / np.sqrt(ARCHITECTURE.decoder.width)
    a = flat["decoder", "layers", "attention", "q_kernel", "lora_a"][...]
    assert 0.8 * bound < np.abs(a).max() <= bound


def test_a_target_that_is_no_kernel_is_one_sentence():
    with pytest.raises(UserError, match="lora.targets: 'attention.gate' matches no kernel of a layer; there are"):
        LoraConfig(rank=2, targets=("attention.gate",))
