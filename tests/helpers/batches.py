"""Comparing batches of a loader."""

import numpy as np


def assert_same(first, second) -> None:
    """Two lists of (Batch, record indices) hold the same."""
    assert len(first) == len(second)
    for (batch, records), (other, others) in zip(first, second, strict=True):
        np.testing.assert_array_equal(records, others)
        for name in ("tokens", "loss_weights", "segment_ids", "positions"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(other, name))
