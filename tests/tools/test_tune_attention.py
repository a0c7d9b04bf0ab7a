"""What tools/tune_attention.py tries on a card; that it compiles for one is checked where the compiler is installed."""

import importlib.util
import pathlib

import pytest

from ualm_jax.models.attention import pallas

PATH = pathlib.Path(__file__).parents[2] / "tools" / "tune_attention.py"


@pytest.mark.parametrize("kernel", ["_FORWARD", "_QUERIES", "_KEYS"])
def test_what_stands_in_the_code_is_tried_beside_others_that_fit_a_row(kernel):
    spec = importlib.util.spec_from_file_location("tune_attention", PATH)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tried = tool.CANDIDATES[kernel]
    assert tuple(getattr(pallas, kernel)) in tried and len(set(tried)) == len(tried) > 1
    assert all(pallas._BLOCK % size == 0 for queries, keys, *_ in tried for size in (queries, keys))
