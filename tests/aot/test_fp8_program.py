"""What the GPU compiler makes of a product of 8-bit numbers; needs JAX's GPU plugin."""

import re

import pytest
from helpers.compiling import execute, needs_plugin

PRODUCTS = """
import jax, jax.numpy as jnp
from ualm_jax.aot.topology import describe
from ualm_jax.models.linear import linear
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec
topology = describe("h100:8")
axes, mesh = ("embed", "mlp"), make_mesh(MeshConfig(1, 8, 1), topology.devices)
def array(*shape, names):
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=jax.NamedSharding(mesh, spec(*names)))
x, kernel, g = (array(8, 4096, 1536, names=("batch", None, None)), array(1536, 8960, names=axes),
                array(8, 4096, 8960, names=("batch", None, "mlp")))
def all_three(x, kernel, g):
    y, back = jax.vjp(lambda x, kernel: linear(2 * x, kernel, axes, fp8=True), x, kernel)
    return y, *back(g)
with jax.set_mesh(mesh), jax.default_device(topology.devices[0]):
    print(jax.jit(all_three).lower(x, kernel, g).compile().as_text())
"""


@needs_plugin
@pytest.mark.slow
def test_kernels_travel_and_are_multiplied_in_8_bits():
    done = execute(PRODUCTS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\(f8e4m3fn\[1536,8960\]\S*.*all-gather-start", done.stdout)
    # cuBLAS's own kernels, whose sums move into float32 on the way; what comes out is stored once, in bfloat16.
    products = re.findall(r"= \((\w+)\[.* custom-call\(.*__cublas\$lt\$matmul\$f8", done.stdout)
    assert products == ["bf16"] * 3
