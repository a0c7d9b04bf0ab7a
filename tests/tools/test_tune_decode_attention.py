"""What tools/tune_decode_attention.py tries on a card."""

import importlib.util
import pathlib

from ualm_jax.models.attention import decode_kernel

PATH = pathlib.Path(__file__).parents[2] / "tools" / "tune_decode_attention.py"


def test_what_stands_in_the_code_is_tried_first_and_beside_others():
    spec = importlib.util.spec_from_file_location("tune_decode_attention", PATH)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tried = tool.candidates()
    assert tried[0] == decode_kernel._BLOCKS and len(set(tried)) == len(tried) > 1
    assert all(one.positions.bit_count() == one.warps.bit_count() == 1 for one in tried)
