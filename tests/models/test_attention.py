"""Attention backends: the same numbers as the oracle, whoever computes them, packed or not."""

import functools
import importlib.util
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ualm_jax.errors import UserError
from ualm_jax.models.attention import AttentionSpec, attend, pallas, splash, tokamax, xla
from ualm_jax.models.attention.backend import _choose
from ualm_jax.models.attention.spec import segment_ranges
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec as sharding

needs_tokamax = pytest.mark.skipif(
    importlib.util.find_spec("tokamax") is None, reason="tokamax, an optional dependency, is not installed"
)
BACKENDS = {
    "xla": xla.attend,
    # The TPU kernel's own steps, run as plain JAX.
    "splash": functools.partial(splash.attend, interpret=True),
    # Ours for GPUs, likewise.
    "pallas": functools.partial(pallas.attend, interpret=True),
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
    backend = jax.jit(BACKENDS[name])
    packed = backend(q, k, v, AttentionSpec(jnp.asarray(SEGMENTS)))
    for row, start, stop in ((0, 0, 100), (0, 100, 137), (0, 137, 226), (1, 0, 200), (1, 200, 256)):
        alone = [np.zeros_like(x[:1]) for x in (q, k, v)]
        for into, x in zip(alone, (q, k, v), strict=True):
            into[0, : stop - start] = np.asarray(x)[row, start:stop]
        ids = (np.arange(T) < stop - start).astype(np.int32)[None]
        single = backend(*alone, AttentionSpec(jnp.asarray(ids)))
        np.testing.assert_allclose(
            np.asarray(packed)[row, start:stop], np.asarray(single)[0, : stop - start], atol=1e-5
        )


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
    start, end = segment_ranges(jnp.array([[1, 1, 2, 2, 2, 0], [3, 3, 3, 3, 3, 3]]))
    np.testing.assert_array_equal(start, [[0, 0, 2, 2, 2, 5], [0] * 6])
    np.testing.assert_array_equal(end, [[2, 2, 5, 5, 5, 6], [6] * 6])


@pytest.mark.parametrize("name", ["splash", "tokamax", "pallas"])
def test_a_backend_that_is_not_for_this_device_says_so(name):
    with pytest.raises(UserError, match=f"execution.attention = '{name}' can not be used: .* this is cpu"):
        attend(*inputs(), AttentionSpec(jnp.asarray(SEGMENTS)), name)


@pytest.mark.parametrize("shape", [(1, 200, 2, 2, 64), (1, 256, 2, 2, 80)], ids=["length", "head_dim"])
def test_splash_says_which_shapes_it_can_not_do(shape):
    assert "multiple of 128" in splash.unable("tpu", shape, "float32")
    assert splash.unable("tpu", (1, 256, 2, 2, 64), "float32") is None


@pytest.mark.parametrize("shape", [(1, 192, 2, 2, 64), (1, 256, 2, 2, 80)], ids=["length", "head_dim"])
def test_our_kernels_say_which_shapes_they_can_not_do(shape):
    assert "multiple of 128 and a head_dim of 16, 32, 64, 128" in pallas.unable("gpu", shape, "bfloat16")
    assert pallas.unable("gpu", (1, 256, 2, 2, 128), "bfloat16") is None
    assert "compute in bfloat16" in pallas.unable("gpu", (1, 256, 2, 2, 128), "float32")


def test_our_kernels_are_right_in_bfloat16():
    """Sums are in float32, so that results are off by roundings of single numbers: of 8 bits, relatively."""
    spec = AttentionSpec(jnp.asarray(SEGMENTS))
    halves = [x.astype(jnp.bfloat16) for x in inputs()]
    weight = jax.random.normal(jax.random.key(9), halves[0].shape) * (SEGMENTS > 0)[:, :, None, None, None]
    out, grads = value_and_grads(BACKENDS["pallas"], *halves, spec, weight)
    wanted, wanted_grads = value_and_grads(oracle, *(x.astype(jnp.float32) for x in halves), spec, weight)
    for found, expected in zip((out, *grads), (wanted, *wanted_grads), strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=2.0**-7 * np.abs(expected).max())


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("broken", [0, 1], ids=["first", "second"])
def test_our_kernels_never_read_the_blocks_of_other_documents(causal, broken):
    """What is masked is multiplied by zero, and zero times what is no number is none: here no such product is made."""
    spec = AttentionSpec(jnp.broadcast_to(jnp.repeat(jnp.array([1, 2]), T // 2), (B, T)), causal)
    halves = (slice(None), slice(broken * T // 2, (broken + 1) * T // 2))
    whole = slice((1 - broken) * T // 2, (2 - broken) * T // 2)
    weight = jax.random.normal(jax.random.key(9), (B, T, K, G, H))
    q, k, v = (x.at[halves].set(jnp.nan) for x in inputs())
    out, grads = value_and_grads(BACKENDS["pallas"], q, k, v, spec, weight.at[halves].set(jnp.nan))
    wanted, wanted_grads = value_and_grads(oracle, *inputs(), spec, weight)
    np.testing.assert_allclose(out[:, whole], wanted[:, whole], atol=1e-5)
    for grad, expected in zip(grads, wanted_grads, strict=True):
        np.testing.assert_allclose(grad[:, whole], expected[:, whole], atol=2e-5)


@needs_tokamax
def test_tokamax_says_which_lengths_it_can_not_do():
    assert "blocks of 128 positions and there are 192" in tokamax.unable("gpu", (1, 192, 2, 2, 64), "bfloat16")
    assert tokamax.unable("gpu", (1, 256, 2, 2, 64), "bfloat16") is None


def test_tokamax_says_nothing_of_blocks_that_were_not_tuned(caplog):
    tokamax._quiet()
    for line in ("Autotuning cache miss for %s on %s", "%s on %s is wrong"):
        logging.getLogger("absl").warning(line, "kernel", "H100")
    assert [record.getMessage() for record in caplog.records] == ["kernel on H100 is wrong"]


def test_auto_chooses_by_device_and_logs_once(caplog):
    _choose.cache_clear()
    with caplog.at_level(logging.DEBUG, "ualm_jax"):
        for _ in range(2):
            out = attend(*inputs(), AttentionSpec(jnp.asarray(SEGMENTS)))
        assert _choose("tpu", "TPU v5 lite", (1, 4096, 2, 6, 128), "bfloat16", True) == "splash"
        assert _choose("tpu", "TPU v5 lite", (1, 1500, 20, 1, 64), "bfloat16", False) == "xla"
    np.testing.assert_allclose(out, oracle(*inputs(), AttentionSpec(jnp.asarray(SEGMENTS))), atol=1e-5)
    lines = [record.message for record in caplog.records]
    assert [line.split(": ")[1] for line in lines] == [
        "xla (there is no kernel for cpu)",
        "splash",
        "xla (splash needs a length that is a multiple of 128 and a head_dim of 64s, not 1500 and 64)",
    ]


@pytest.mark.parametrize(
    "kind, dtype, causal, installed, wanted",
    [
        ("NVIDIA H200", "bfloat16", True, True, "pallas"),
        ("NVIDIA H200", "bfloat16", False, True, "tokamax"),
        ("NVIDIA H200", "float32", True, True, "tokamax"),
        ("NVIDIA H200", "float32", True, False, "xla"),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", True, True, "tokamax"),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", True, False, "pallas"),
    ],
)
def test_auto_takes_the_kernel_that_was_measured_best_of_those_that_can(
    kind, dtype, causal, installed, wanted, monkeypatch
):
    monkeypatch.setattr(tokamax, "unable", lambda *_: None if installed else "it is not installed")
    _choose.cache_clear()
    assert _choose("cuda", kind, (4, 4096, 2, 6, 128), dtype, causal) == wanted
    _choose.cache_clear()


@pytest.mark.parametrize(
    "platform, kind, backend, calls",
    [
        ("tpu", "TPU v5 lite", "auto", ["tpu_custom_call"]),
        (
            "cuda",
            "NVIDIA H100 80GB HBM3",
            "auto",
            [f"packed_attention_{part}" for part in ("forward", "query_gradient", "key_gradient")],
        ),
    ],
    ids=["tpu", "gpu"],
)
def test_attention_of_a_program_for_another_device_is_that_devices(platform, kind, backend, calls):
    """Lowered on a machine without one: what counts is the device of the mesh, not that of the machine."""
    mesh = jax.sharding.AbstractMesh(
        (1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Explicit,) * 3,
        abstract_device=jax.sharding.AbstractDevice(kind, 1, "gpu" if platform == "cuda" else platform),
    )
    shapes = [jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) for x in inputs()]

    def total(q, k, v, ids):
        return jnp.sum(attend(q, k, v, AttentionSpec(ids), backend).astype(jnp.float32))

    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
        traced = program.trace(*shapes, jax.ShapeDtypeStruct(SEGMENTS.shape, SEGMENTS.dtype))
        text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert all(call in text for call in calls)
