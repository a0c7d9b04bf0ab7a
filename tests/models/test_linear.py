"""A product with a split kernel is the plain product, forward and backward, and sends no more than it must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ualm_jax.aot import hlo
from ualm_jax.models.linear import linear
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec

WIDENS, NARROWS = ("embed", "mlp"), ("mlp", "embed")
MESHES = [MeshConfig(8, 1, 1), MeshConfig(1, 8, 1), MeshConfig(1, 1, 8), MeshConfig(2, 2, 2)]


def arrays(axes):
    rng = np.random.default_rng(0)
    sizes = [16 if axis == "embed" else 64 for axis in axes]
    x, g = (rng.standard_normal((8, 24, size)).astype(np.float32) for size in sizes)
    return x, rng.standard_normal(sizes).astype(np.float32), g


def both_grads(x, kernel, g, axes):
    """Gradients of x and kernel where the output has the cotangent g."""
    return jax.jit(lambda x, kernel, g: jax.vjp(lambda x, kernel: linear(x, kernel, axes), x, kernel)[1](g))(
        x, kernel, g
    )


def on_mesh(x, kernel, g, axes):
    inner, outer = (None if axis == "embed" else axis for axis in axes)
    return (
        jax.device_put(x, spec("batch", None, inner)),
        jax.device_put(kernel, spec(*axes)),
        jax.device_put(g, spec("batch", None, outer)),
    )


@pytest.mark.parametrize("axes", [WIDENS, NARROWS])
@pytest.mark.parametrize("config", MESHES, ids=str)
def test_gradients_equal_those_of_the_plain_product(config, axes):
    x, kernel, g = arrays(axes)
    expected = np.einsum("bto,io->bti", g, kernel), np.einsum("bti,bto->io", x, g)
    with jax.set_mesh(make_mesh(config)):
        placed = on_mesh(x, kernel, g, axes)
        y = jax.jit(linear, static_argnums=2)(*placed[:2], axes)
        np.testing.assert_allclose(y, x @ kernel, rtol=1e-5, atol=1e-5)
        for grad, plain, like in zip(both_grads(*placed, axes), expected, placed, strict=False):
            np.testing.assert_allclose(grad, plain, rtol=1e-5, atol=1e-4)
            assert grad.sharding.is_equivalent_to(like.sharding, grad.ndim)


@pytest.mark.parametrize("axes", [WIDENS, NARROWS])
def test_a_kernels_gradient_is_scattered_not_summed_everywhere(axes):
    """Per device: one gather of the kernel, and one reduce-scatter of its gradient as large as the kernel."""
    with jax.set_mesh(make_mesh(MeshConfig(1, 8, 1))):
        placed = on_mesh(*arrays(axes), axes)
        text = jax.jit(lambda *arrays: both_grads(*arrays, axes)).lower(*placed).compile().as_text()
    found = hlo.by_kind(hlo.collectives(text, 8, 8))
    sent = 7 / 8 * 16 * 64 * 4
    assert set(found) == {"all-gather", "reduce-scatter"}
    assert found["all-gather"]["bytes"] == found["reduce-scatter"]["bytes"] == sent


def test_products_and_gradients_have_the_dtype_of_their_inputs():
    placed = on_mesh(*(jnp.asarray(array, jnp.bfloat16) for array in arrays(WIDENS)), WIDENS)
    assert {grad.dtype for grad in both_grads(*placed, WIDENS)} == {jnp.dtype(jnp.bfloat16)}
