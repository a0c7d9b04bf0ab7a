"""Converted golden checkpoints, made once."""

import numpy as np
import pytest

from ualm_jax.convert_weights.qwen2 import import_qwen2
from ualm_jax.convert_weights.ualm_reference import import_reference


@pytest.fixture(scope="session")
def base(golden_dir, tmp_path_factory):
    """The golden text model, converted, with codec and tokenizer beside it."""
    out = tmp_path_factory.mktemp("converted") / "base"
    import_qwen2(golden_dir / "qwen2", out, codec=golden_dir / "xcodec")
    return out


@pytest.fixture(scope="session")
def trained(golden_dir, tmp_path_factory):
    """The golden reference checkpoint, converted."""
    out = tmp_path_factory.mktemp("converted") / "trained"
    import_reference(golden_dir / "checkpoints", out, base=golden_dir / "qwen2", codec=golden_dir / "xcodec")
    return out


@pytest.fixture(scope="session")
def assert_same_tensors():
    """Of two sets of tensors: names, dtypes, shapes and every byte."""

    def check(left, right):
        assert set(left.tensors) == set(right.tensors)
        for name in left.tensors:
            a, b = left.read(name), right.read(name)
            assert a.dtype == b.dtype and a.shape == b.shape, name
            assert np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8)), name

    return check
