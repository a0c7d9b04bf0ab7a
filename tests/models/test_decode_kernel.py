"""The kernel that decodes on GPUs, by its own steps: what plain XLA returns and stores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ualm_jax.errors import UserError
from ualm_jax.models.attention import attend_cache, cache, decode_kernel
from ualm_jax.models.rope import rope_tables
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec

K = 2


def inputs(G: int, H: int, T: int, lengths: list[int]) -> tuple:
    """What `attend_cache` takes, in bfloat16."""
    B = len(lengths)
    shapes = [(B, 1, K, G, H), (B, 1, K, H), (B, 1, K, H), (B, K, T, H), (B, K, T, H)]
    random = jax.random.split(jax.random.key(T), len(shapes))
    q, k, v, keys, values = (jax.random.normal(*one).astype(jnp.bfloat16) for one in zip(random, shapes, strict=True))
    length = jnp.array(lengths)
    return q, k, v, rope_tables(length[:, None], H, 1e6), keys, values, length


def in_one_kernel(q, k, v, rope, keys, values, length, splits):
    kernel = functools.partial(cache.attend_in_one_kernel, splits=splits, interpret=True)
    return jax.jit(functools.partial(cache.on_each_device, kernel))(q, k, v, *rope, keys, values, length)


def bits(array) -> np.ndarray:
    return np.asarray(jax.lax.bitcast_convert_type(array, jnp.uint16))


CASES = [
    # Blocks are of 64 positions: their edges, nothing before, a full sequence, and one that is more than full.
    pytest.param(6, 128, 192, [0, 1, 63, 64, 65, 127, 191, 192, 250], 1, id="1.5b"),
    pytest.param(6, 128, 190, [0, 1, 63, 64, 65, 128, 189, 190], 3, id="split"),
    pytest.param(7, 64, 300, [0, 64, 129, 299, 300], 4, id="0.5b-split-not-evenly"),
    pytest.param(1, 64, 40, [0, 1, 39, 40], 2, id="less-than-a-block"),
]


@pytest.mark.parametrize("G, H, T, lengths, splits", CASES)
def test_it_returns_what_xla_returns_and_stores_the_same_bits(G, H, T, lengths, splits):
    """Weights and results are rounded to 8 bits, on both sides: each is off by 2^-8 of the largest value at most.

    Where a sequence has nothing, the cache is NaN: none of it may be read, and none of it changes.
    """
    q, k, v, rope, keys, values, length = inputs(G, H, T, lengths)
    wanted, *stored = jax.jit(attend_cache)(q, k, v, rope, keys, values, length)
    place = np.minimum(lengths, T - 1)
    index = np.arange(T)[None, :, None]
    holds, new = (np.expand_dims(which, 1) for which in (index < place[:, None, None], index == place[:, None, None]))
    before = [jnp.where(holds, part, jnp.nan) for part in (keys, values)]

    found, *parts = in_one_kernel(q, k, v, rope, *before, length, splits)
    assert found.dtype == jnp.bfloat16
    largest = np.abs(np.concatenate([v.ravel(), values.ravel()]).astype(np.float32)).max()
    np.testing.assert_allclose(found.astype(np.float32), wanted.astype(np.float32), rtol=0, atol=2.0**-7 * largest)
    for part, old, other in zip(parts, before, stored, strict=True):
        np.testing.assert_array_equal(bits(part), np.where(new, bits(other), bits(old)))


def test_without_anything_before_it_a_position_sees_itself():
    q, k, v, rope, keys, values, length = inputs(6, 64, 64, [0, 0])
    found, *_ = in_one_kernel(q, k, v, rope, keys, values, length, 2)
    np.testing.assert_array_equal(bits(found), bits(jnp.broadcast_to(v[:, :, :, None], found.shape)))


def test_four_devices_attend_as_one_does():
    """Sequences and heads are split among them."""
    arguments = inputs(6, 64, 128, [0, 70, 127, 128])
    wanted = in_one_kernel(*arguments, splits=2)
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=2), jax.devices()[:4])

    def place(array):
        sharding = jax.NamedSharding(mesh, spec("batch", *[None] * (array.ndim - 1)))
        return jax.device_put(np.asarray(array), sharding)

    with jax.set_mesh(mesh):
        found = in_one_kernel(*jax.tree.map(place, arguments), splits=2)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(bits(np.asarray(one)), bits(other))


def test_positions_are_split_where_sequences_are_few_and_may_be_long():
    splits = decode_kernel._Blocks(programs=132, share=256).splits
    assert splits(pairs=4, capacity=320) == 1  # a second kernel would cost more than it saves
    assert splits(pairs=4, capacity=2000) == 7
    assert splits(pairs=64, capacity=2000) == 2
    assert splits(pairs=256, capacity=2000) == 1  # the device is full


@pytest.mark.parametrize(
    "platform, head_dim, dtype, reason",
    [
        ("cpu", 128, "bfloat16", "this is cpu"),
        ("cuda", 128, "float32", "compute in bfloat16"),
        ("cuda", 80, "bfloat16", "head_dim of 32, 64, 128, 256, not 80"),
    ],
)
def test_what_the_kernel_can_not_do_has_a_reason(platform, head_dim, dtype, reason):
    assert reason in decode_kernel.unable(platform, head_dim, dtype)


def test_named_where_it_can_not_be_used_it_is_refused():
    q, k, v, rope, *kept = inputs(6, 64, 64, [3, 5])
    with pytest.raises(UserError, match="execution.decode_attention = 'pallas' can not be used: .*this is cpu"):
        attend_cache(q, k, v, rope, *kept, "pallas")


@pytest.mark.parametrize("new, backend, calls", [(1, "pallas", 1), (1, "xla", 0), (2, "pallas", 0)])
def test_in_a_program_for_a_gpu_a_single_position_takes_the_kernel_that_was_named(new, backend, calls):
    """Lowered on a machine without one."""
    q, k, v, rope, keys, values, length = inputs(6, 64, 128, [3, 5])
    q, k, v, *rope = (jnp.repeat(x, new, axis=1) for x in (q, k, v, *rope))
    mesh = jax.sharding.AbstractMesh(
        (1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Explicit,) * 3,
        abstract_device=jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 1, "gpu"),
    )
    arguments = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v, *rope, keys, values, length)]
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.jit(lambda q, k, v, cos, sin, *rest: attend_cache(q, k, v, (cos, sin), *rest, backend))
        text = program.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count('name = "decode_attention"') == calls
