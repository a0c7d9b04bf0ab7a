"""Operations and bytes by formula, against counts by hand and by the compiler."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from ualm_jax.aot.roofline import train_roofline
from ualm_jax.errors import UserError
from ualm_jax.models import flops
from ualm_jax.models.attention import AttentionSpec
from ualm_jax.models.config import QWEN2_5, Architecture, DecoderConfig, Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.hardware import PEAKS, peak_of
from ualm_jax.tokens.vocabulary import Vocabulary

SMALL = Architecture(
    DecoderConfig(num_layers=1, width=128, num_heads=4, num_kv_heads=2, mlp_dim=256),
    Vocabulary(300, 31),
)
LARGE = Architecture(QWEN2_5["1.5b"], Vocabulary(151_936, 1024))


def test_layer_operations_are_those_the_compiler_counts():
    """One layer, so that a scan counted once is counted right; the plain backend computes every pair of positions."""
    B, T = 2, 64
    structure, params = nnx.split(jax.eval_shape(lambda: UALM(SMALL, Execution(compute_dtype="float32"), nnx.Rngs(0))))

    def forward(params, x, positions, ids):
        return nnx.merge(structure, params).decoder(x, positions, AttentionSpec(ids), Execution())

    whole = jax.ShapeDtypeStruct((B, T), jnp.int32)
    x = jax.ShapeDtypeStruct((B, T, 128), jnp.float32)
    counted = jax.jit(forward).lower(params, x, whole, whole).compile().cost_analysis()["flops"]
    formula = flops.forward_per_position(SMALL, T)
    every_pair = formula.attention * 2 * T / (T + 1)
    assert counted == pytest.approx(B * T * (formula.layers + every_pair), rel=0.15)  # norms, RoPE and softmax on top


def test_a_step_of_qwen_1_5b_by_hand():
    step = flops.train_step(LARGE, rows=1, length=4096)
    matrices = 28 * (1536 * (12 + 4) * 128 + (12 + 4) * 128 + 12 * 128 * 1536 + 3 * 1536 * 8960)
    assert step.layers == 6 * matrices * 4096
    assert step.heads == 6 * 1536 * (256 + 151_936 + 8 * 1025) * 4096
    assert step.attention == 6 * 28 * 12 * 128 * 4097 * 4096
    assert step.total == step.layers + step.heads + step.attention


def test_documents_that_share_a_row_do_not_see_each_other():
    """As many operations as of the same documents in rows of their own, and as a step counts from what it sees."""
    packed = flops.train_step(LARGE, rows=3, length=4096, documents=8)
    assert packed == flops.train_step(LARGE, rows=24, length=512)
    assert flops.packed_step(LARGE, 3 * 4096.0, 24 * 512 * 513 / 2) == pytest.approx(packed.total)
    assert packed.attention < flops.train_step(LARGE, rows=3, length=4096).attention / 7.9


def test_a_step_of_sound_reads_each_weight_once_and_not_the_text_head():
    assert flops.decode_weight_bytes(LARGE) == 2 * (LARGE.decoder.num_params() + 1536 * (8 * 1025 + 2))
    assert flops.decode_cache_bytes(LARGE, rows=2, length=500) == 2 * 28 * 2 * 500 * 2 * 128 * 2


@pytest.mark.parametrize(
    "kind, name",
    [
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
    ],
)
def test_a_device_is_found_by_what_jax_calls_it(kind, name):
    assert peak_of(kind) is PEAKS[name]


def test_an_unknown_device_is_named():
    with pytest.raises(UserError, match="no peak figures for 'Abacus'"):
        peak_of("Abacus")


def test_the_roofline_names_its_limit():
    work = flops.train_step(LARGE, rows=16, length=4096)
    peak = PEAKS["v5e"]
    common = dict(devices=16, remat_flops=0.0, memory_bytes=1e9)
    roof = train_roofline(work, peak, network_bytes=1e9, **common)
    assert roof.limit == "compute" and roof.mfu(roof.bound) == pytest.approx(1.0)
    assert roof.serial == pytest.approx(roof.compute + 1e9 / 819e9 + 1e9 / 100e9)
    slow = train_roofline(work, peak, network_bytes=1e12, **common)
    assert slow.limit == "network" and slow.bound == pytest.approx(10.0) and slow.mfu(slow.bound) < 0.05


def test_bytes_to_other_machines_go_over_their_own_network():
    work = flops.train_step(LARGE, rows=16, length=4096)
    common = dict(devices=16, remat_flops=0.0, memory_bytes=0.0, network_bytes=0.0)
    assert train_roofline(work, PEAKS["h100"], host_network_bytes=50e9, **common).network == pytest.approx(1.0)
