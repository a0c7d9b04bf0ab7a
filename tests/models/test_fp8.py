"""Products of numbers rounded to 8 bits: which numbers they are, and that no mesh changes them."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from helpers import golden_model

from ualm_jax.aot import hlo
from ualm_jax.models.fp8 import COTANGENTS, VALUES
from ualm_jax.models.fp8 import rounded as rounded_op_by_op
from ualm_jax.models.linear import linear
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec

rounded = jax.jit(rounded_op_by_op, static_argnums=1)
LARGEST = {VALUES: 448.0, COTANGENTS: 57344.0}
DIGITS = {VALUES: 4, COTANGENTS: 3}  # of the mantissa, with the one that is not stored
THEIRS = {VALUES: ml_dtypes.float8_e4m3fn, COTANGENTS: ml_dtypes.float8_e5m2}
WIDENS, NARROWS = ("embed", "mlp"), ("mlp", "embed")


def expected(x, dtype):
    """`x` rounded, widened again: by numpy, with a scale found by trying."""
    scale = 2.0**-100
    while np.abs(x).max() / scale > LARGEST[dtype]:
        scale *= 2
    return (x / scale).astype(THEIRS[dtype]).astype(np.float64) * scale


@pytest.mark.parametrize("dtype", [VALUES, COTANGENTS])
@pytest.mark.parametrize("size", [1e-6, 0.7, 1.0, 448.0, 3e5])
def test_the_scale_is_the_least_power_of_two_with_which_all_fit(dtype, size):
    x = size * np.random.default_rng(0).uniform(-1, 1, (7, 33)).astype(np.float32)
    values, scale = rounded(jnp.asarray(x), dtype)
    mantissa, _ = np.frexp(np.float32(scale))
    assert mantissa == 0.5 and values.dtype == dtype
    assert LARGEST[dtype] / 2 < np.abs(x).max() / scale <= LARGEST[dtype]
    found = np.asarray(values, np.float64) * float(scale)
    np.testing.assert_array_equal(found, expected(x, dtype))
    near = np.abs(x) > np.abs(x).max() / 2**5  # what is much smaller loses digits
    assert np.abs(found / x - 1)[near].max() <= 2.0 ** -DIGITS[dtype]


def test_a_scale_is_exact_in_bfloat16_too():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((16, 16)), jnp.bfloat16)
    wide, narrow = rounded(x.astype(jnp.float32), VALUES), rounded(x, VALUES)
    assert narrow.scale.dtype == jnp.bfloat16 and float(narrow.scale) == float(wide.scale)
    np.testing.assert_array_equal(np.asarray(narrow.values, np.float32), np.asarray(wide.values, np.float32))


def test_zeros_stay_zeros_and_one_bad_number_is_not_hidden():
    zeros = rounded(jnp.zeros((4, 4)), VALUES)
    assert float(zeros.scale) > 0 and not np.any(np.asarray(zeros.values, np.float32))
    for bad in (np.nan, np.inf):
        values, scale = rounded(jnp.ones((4, 4)).at[1, 2].set(bad), VALUES)
        assert np.isnan(np.asarray(values, np.float32) * np.float32(scale)).all()


def arrays(axes):
    rng = np.random.default_rng(0)
    sizes = [16 if axis == "embed" else 64 for axis in axes]
    x, g = (rng.standard_normal((8, 24, size)).astype(np.float32) for size in sizes)
    return x, rng.standard_normal(sizes).astype(np.float32) / 50, g / 1000


def placed(axes):
    x, kernel, g = arrays(axes)
    inner, outer = (None if axis == "embed" else axis for axis in axes)
    specs = spec("batch", None, inner), spec(*axes), spec("batch", None, outer)
    return [jax.device_put(array, one) for array, one in zip((x, kernel, g), specs, strict=True)]


@pytest.mark.parametrize("axes", [WIDENS, NARROWS])
@pytest.mark.parametrize("config", [MeshConfig(1, 1, 1), MeshConfig(1, 8, 1), MeshConfig(2, 2, 2)], ids=str)
def test_products_and_gradients_are_those_of_the_rounded_numbers_on_every_mesh(config, axes):
    x, kernel, g = arrays(axes)
    x8, kernel8, g8 = expected(x, VALUES), expected(kernel, VALUES), expected(g, COTANGENTS)
    wanted = x8 @ kernel8, np.einsum("bto,io->bti", g8, kernel8), np.einsum("bti,bto->io", x8, g8)

    def all_three(x, kernel, g):
        y, back = jax.vjp(lambda x, kernel: linear(x, kernel, axes, fp8=True), x, kernel)
        return y, *back(g)

    with jax.set_mesh(make_mesh(config, jax.devices()[: config.data * config.fsdp * config.tensor])):
        found = jax.jit(all_three)(*placed(axes))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_a_kernel_is_gathered_rounded():
    """A CPU sends numbers of 8 bits as 16; that is half of what it sends of float32. A GPU sends 8 (tests/aot)."""
    sent = {}
    with jax.set_mesh(make_mesh(MeshConfig(1, 8, 1))):
        x, kernel, _ = placed(WIDENS)
        for fp8 in (False, True):
            program = jax.jit(lambda x, kernel, fp8=fp8: linear(x, kernel, WIDENS, fp8)).lower(x, kernel).compile()
            sent[fp8] = hlo.by_kind(hlo.collectives(program.as_text(), 8, 8))["all-gather"]["bytes"]
    assert sent[True] == sent[False] / 2


def test_it_changes_what_training_computes_and_nothing_of_generation(golden, golden_dir):
    """By the golden model: its hidden states change by what rounding does, and a prompt is read as ever."""
    batch, model = golden_model.batch_of(golden, "batch_of_four"), golden_model.load(golden_dir)

    def both(model):
        lengths = jnp.sum(batch.segment_ids, axis=1)
        return model(batch), model.decoder.prefill(model.decoder.unstacked(), model.embed_batch(batch), lengths)[0]

    states, read = jax.jit(both)(model)
    model.execution = dataclasses.replace(model.execution, layer_products="fp8")
    rounded_states, read_again = jax.jit(both)(model)
    np.testing.assert_array_equal(read, read_again)
    states, rounded_states = (np.asarray(one)[np.asarray(batch.segment_ids) > 0] for one in (states, rounded_states))
    moved = np.linalg.norm(rounded_states - states) / np.linalg.norm(states)
    assert 2.0**-9 < moved < 2.0**-3  # a digit of e4m3 is 2^-4
