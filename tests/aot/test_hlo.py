"""Collectives read from compiled programs, against what the program was written to send."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ualm_jax.aot import compile, hlo
from ualm_jax.aot.topology import Topology
from ualm_jax.cli.config_file import load_config
from ualm_jax.mapping import from_mapping
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.config import RunConfig


def compiled(f, *shapes):
    mesh = make_mesh(MeshConfig(2, 4, 1))
    with jax.set_mesh(mesh):
        specs = [jax.P("fsdp", *[None] * (len(shape) - 1)) for shape in shapes]
        args = [
            jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.NamedSharding(mesh, spec))
            for shape, spec in zip(shapes, specs, strict=True)
        ]
        mapped = jax.shard_map(f, in_specs=tuple(specs), out_specs=jax.P(), check_vma=False)
        return jax.jit(mapped).lower(*args).compile().as_text()


def test_a_collective_in_a_loop_counts_as_often_as_it_runs():
    def f(x):
        def body(total, i):
            return total + jnp.sum(jnp.sin(lax.all_gather(x * i, "fsdp", tiled=True))), None

        return lax.scan(body, jnp.float32(0), jnp.arange(7.0))[0]

    (found,) = hlo.collectives(compiled(f, (16, 32)), 8)
    assert (found.kind, found.count, found.group) == ("all-gather", 7, 4)
    assert found.sent == 7 * 16 * 32 * 4 * 3 / 4


def test_bytes_follow_the_ring_algorithms():
    def f(x):
        whole = lax.psum(x, "data")
        part = lax.psum_scatter(x, "fsdp", tiled=True)
        return jnp.sum(whole) + lax.psum(jnp.sum(part), "fsdp") + jnp.sum(lax.ppermute(x, "fsdp", [(0, 1), (1, 0)]))

    table = hlo.by_kind(hlo.collectives(compiled(f, (64, 32)), 8))
    local = 16 * 32 * 4
    assert table["collective-permute"]["bytes"] == local
    assert table["reduce-scatter"]["bytes"] == local * 3 / 4
    assert table["all-reduce"]["bytes"] == pytest.approx(local + 2 * 4 * 3 / 4)


@pytest.mark.parametrize(
    "written, groups",
    [
        ("replica_groups={{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups={}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_are_read_in_every_way_they_are_written(written, groups):
    np.testing.assert_array_equal(hlo._groups(f"all-reduce(x), {written}, dimensions={{0}}", 4), groups)


def test_a_group_across_machines_is_seen():
    line = "ENTRY %main (x: f32[4]) -> f32[4] {\n  ROOT %r = f32[4]{0} all-reduce(%x), replica_groups={{0,4},{1,5}}\n}"
    assert hlo.collectives(line, 8, devices_per_machine=4)[0].across
    assert not hlo.collectives(line, 8, devices_per_machine=8)[0].across


def test_a_step_is_counted_inside_of_the_documents_it_is_told_of(monkeypatch):
    """Of a step that is not compiled here: what is counted follows from the config alone."""
    monkeypatch.setattr(compile, "lower_step", lambda config, mesh: jax.jit(lambda: jnp.zeros(())).lower())
    values = load_config("configs/tiny.py", ["--config.data.batch_size=2", "--config.data.seq_len=64"]).to_dict()
    values["data"]["directory"] = "none is read"
    config, topology = from_mapping(RunConfig, values), Topology("cpu:1", jax.devices()[:1], None)
    one, eight = (compile.compile_step(config, topology, documents) for documents in (1, 8))
    assert eight.flops["attention"] * 65 == one.flops["attention"] * 9  # n + 1 keys, twice on average
    assert eight.flops["layers"] == one.flops["layers"] and eight.to_mapping()["documents"] == 8
