"""A conversion of Qwen2.5-0.5B's size, random weights in bfloat16, proven by running both sides."""

import pytest
from helpers import random_qwen2

from ualm_jax.convert_weights.qwen2 import import_qwen2
from ualm_jax.convert_weights.verify import verify
from ualm_jax.models.config import QWEN2_5

pytestmark = pytest.mark.slow


def test_half_a_billion_parameters_pass(tmp_path):
    random_qwen2.save_large(tmp_path / "source", QWEN2_5["0.5b"], 151936, 1 << 30)
    import_qwen2(tmp_path / "source", tmp_path / "ours")
    report = verify(tmp_path / "source", tmp_path / "ours")
    print(report)
    assert report.passed and len(report.rows) > QWEN2_5["0.5b"].num_layers
