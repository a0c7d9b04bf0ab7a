"""`ualm bench decode` times the kernel for decoding only where it finds what plain JAX finds."""

import pytest

from ualm_jax.bench.decode_attention import TOLERANCE, check
from ualm_jax.models.attention import cache
from ualm_jax.models.config import DecoderConfig

DECODER = DecoderConfig(num_layers=1, width=128, num_heads=4, num_kv_heads=2, mlp_dim=64)


def test_the_kernel_passes_in_one_program_and_in_several():
    assert all(0 < check(DECODER, 8, 80, splits=splits, interpret=True) < TOLERANCE for splits in (1, 2))


@pytest.mark.parametrize("wrong", [1.1, float("nan")])
def test_a_kernel_that_finds_something_else_is_not_timed(wrong, monkeypatch):
    def broken(q, k, v, cos, sin, *rest):
        attended, keys, values = cache.attend_plainly(q, k, v, *rest)
        return wrong * attended, keys, values

    monkeypatch.setattr(cache, "attend_in_one_kernel", broken)
    with pytest.raises(ValueError, match="is off by .* with 8 sequences and room for 80 positions"):
        check(DECODER, 8, 80)
