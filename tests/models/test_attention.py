"""Attention backends: the same numbers as the oracle, whoever computes them, packed or not."""

import functools
import importlib.util
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ualm_jax.errors import UserError
from ualm_jax.models.attention import AttentionSpec, attend, splash, tokamax, xla
from ualm_jax.models.attention.backend import _choose
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec as sharding

needs_tokamax = pytest.mark.skipif(
    importlib.util.find_spec("tokamax") is None, reason="tokamax, an optional dependency, is not installed"
)
BACKENDS = {
    "xla": xla.attend,
    # The TPU kernel's own steps, run as plain JAX.
    "splash": functools.partial(splash.attend, interpret=True),
    # The same private entry as on a GPU, with the implementation that runs anywhere.
    "tokamax": functools.partial(tokamax.attend, implementation="xla"),
}
ALL = [pytest.param(name, marks=needs_tokamax if name == "tokamax" else ()) for name in BACKENDS]
B, T, K, G, H = 2, 256, 2, 2, 64
# Two rows of documents of different lengths; the first ends in padding.
SEGMENTS = np.stack([np.repeat([1, 2, 3, 0], [100, 37, 89, 30]), np.repeat([1, 2], [200, 56])]).astype(np.int32)


def inputs(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = [(B, T, K, G, H), (B, T, K, H), (B, T, K, H)]
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def value_and_grads(backend, q, k, v, spec, weight):
    def weighted(q, k, v):
        out = backend(q, k, v, spec)
        return jnp.sum(out * weight), out

    (_, out), grads = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return out, grads


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("name", ALL)
def test_a_backend_equals_the_oracle_in_values_and_gradients(name, causal):
    spec = AttentionSpec(jnp.asarray(SEGMENTS), causal)
    q, k, v = inputs()
    weight = jax.random.normal(jax.random.key(9), q.shape) * (SEGMENTS > 0)[:, :, None, None, None]
    out, grads = value_and_grads(BACKENDS[name], q, k, v, spec, weight)
    wanted, wanted_grads = value_and_grads(oracle, q, k, v, spec, weight)
    np.testing.assert_allclose(out, wanted, atol=1e-5)
    for grad, expected in zip(grads, wanted_grads, strict=True):
        np.testing.assert_allclose(grad, expected, atol=2e-5)


def oracle(q, k, v, spec):
    """Softmax over an explicit [T, T] mask, one head at a time."""
    seen = np.asarray(spec.segment_ids)[:, :, None] == np.asarray(spec.segment_ids)[:, None, :]
    if spec.causal:
        seen &= np.tril(np.ones((T, T), bool))
    k, v = (jnp.broadcast_to(x[:, :, :, None], q.shape) for x in (k, v))
    logits = jnp.einsum("btkgh,bskgh->bkgts", q, k) / np.sqrt(H)
    logits = jnp.where(seen[:, None, None], logits, -jnp.inf)
    return jnp.einsum("bkgts,bskgh->btkgh", jax.nn.softmax(logits), v)


@pytest.mark.parametrize("name", ALL)
def test_packed_documents_are_attended_as_if_alone(name):
    q, k, v = inputs()
    packed = BACKENDS[name](q, k, v, AttentionSpec(jnp.asarray(SEGMENTS)))
    for row, start, stop in ((0, 0, 100), (0, 100, 137), (0, 137, 226), (1, 0, 200), (1, 200, 256)):
        alone = [jnp.zeros_like(x[:1]).at[:, : stop - start].set(x[row : row + 1, start:stop]) for x in (q, k, v)]
        ids = (np.arange(T) < stop - start).astype(np.int32)[None]
        single = BACKENDS[name](*alone, AttentionSpec(jnp.asarray(ids)))
        np.testing.assert_allclose(packed[row, start:stop], single[0, : stop - start], atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_four_devices_attend_as_one_does(name):
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=2), jax.devices()[:4])
    spec = AttentionSpec(jnp.asarray(SEGMENTS))
    wanted = oracle(*inputs(), spec)
    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(np.asarray(x), jax.NamedSharding(mesh, sharding("batch", None, "kv_heads", *[None] * n)))
            for x, n in zip(inputs(), (2, 1, 1), strict=True)
        ]
        rows = jax.device_put(SEGMENTS, jax.NamedSharding(mesh, sharding("batch", None)))
        out = jax.jit(BACKENDS[name])(*placed, AttentionSpec(rows))
    np.testing.assert_allclose(np.asarray(out), wanted, atol=1e-5)


def test_segment_ranges_are_each_positions_document():
    start, end = tokamax.segment_ranges(jnp.array([[1, 1, 2, 2, 2, 0], [3, 3, 3, 3, 3, 3]]))
    np.testing.assert_array_equal(start, [[0, 0, 2, 2, 2, 5], [0] * 6])
    np.testing.assert_array_equal(end, [[2, 2, 5, 5, 5, 6], [6] * 6])


@pytest.mark.parametrize("name", ["splash", "tokamax"])
def test_a_backend_that_is_not_for_this_device_says_so(name):
    with pytest.raises(UserError, match=f"execution.attention = '{name}' can not be used: .* this is cpu"):
        attend(*inputs(), AttentionSpec(jnp.asarray(SEGMENTS)), name)


@pytest.mark.parametrize("shape", [(1, 200, 2, 2, 64), (1, 256, 2, 2, 80)], ids=["length", "head_dim"])
def test_splash_says_which_shapes_it_can_not_do(shape):
    assert "multiple of 128" in splash.unable("tpu", shape)
    assert splash.unable("tpu", (1, 256, 2, 2, 64)) is None


@needs_tokamax
def test_tokamax_says_which_lengths_it_can_not_do():
    assert "blocks of 128 positions and there are 192" in tokamax.unable("gpu", (1, 192, 2, 2, 64))
    assert tokamax.unable("gpu", (1, 256, 2, 2, 64)) is None


def test_auto_chooses_by_device_and_logs_once(caplog):
    _choose.cache_clear()
    with caplog.at_level(logging.DEBUG, "ualm_jax"):
        for _ in range(2):
            out = attend(*inputs(), AttentionSpec(jnp.asarray(SEGMENTS)))
        assert _choose("tpu", (1, 4096, 2, 6, 128), True) == "splash"
        assert _choose("tpu", (1, 1500, 20, 1, 64), False) == "xla"
    np.testing.assert_allclose(out, oracle(*inputs(), AttentionSpec(jnp.asarray(SEGMENTS))), atol=1e-5)
    lines = [record.message for record in caplog.records]
    assert [line.split(": ")[1] for line in lines] == [
        "xla (there is no kernel for cpu)",
        "splash",
        "xla (splash needs a length that is a multiple of 128 and a head_dim of 64s, not 1500 and 64)",
    ]


def test_attention_of_a_program_for_a_tpu_is_the_tpus():
    """Lowered on a machine without one: what counts is the device of the mesh, not that of the machine."""
    mesh = jax.sharding.AbstractMesh(
        (1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Explicit,) * 3,
        abstract_device=jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu"),
    )
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (*inputs(), SEGMENTS)]
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.jit(lambda q, k, v, ids: attend(q, k, v, AttentionSpec(ids)))
        text = program.trace(*shapes).lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" in text
