"""The name tables cover every array of the model once, and both directions agree."""

import numpy as np
import pytest
from helpers import golden_model
from hypothesis import given
from hypothesis import strategies as st

from ualm_jax.convert_weights.ualm_reference import HANDLERS
from ualm_jax.models.hf_names import (
    ADAPTER,
    DECODER,
    QWEN2,
    STREAMS,
    TABLES,
    Tensor,
    hf_shape,
    hf_shapes,
    our_shapes,
    reference,
    to_hf,
    to_ours,
)

ARCHITECTURE = golden_model.ARCHITECTURE


def test_every_array_of_the_model_has_one_name():
    named = [tensor.ours for tensor in DECODER + STREAMS + ADAPTER] + list(TABLES)
    assert sorted(named) == sorted(our_shapes(ARCHITECTURE))


def test_qwen2_lacks_what_only_a_ualm_has():
    missing = set(our_shapes(ARCHITECTURE)) - {tensor.ours for tensor in QWEN2.tensors} - set(TABLES)
    assert missing == {"stream_embed", "adapter.kernel", "adapter.bias"}


def test_names_and_shapes_are_those_of_the_golden_checkpoint(golden_dir):
    tensors = golden_model.reference_tensors(golden_dir)
    found = {name: value.shape for name, value in tensors.items() if not name.startswith(HANDLERS)}
    assert hf_shapes(reference(ARCHITECTURE), ARCHITECTURE) == found


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_both_directions_are_inverse(shape, data):
    shape = tuple(shape)
    inputs = data.draw(st.one_of(st.none(), st.integers(0, len(shape) - 1)))
    tensor = Tensor("hf", "ours", inputs)
    ours = np.arange(np.prod(shape)).reshape(shape)
    hf = to_hf(tensor, ours)
    assert hf.shape == hf_shape(tensor, shape)
    assert np.array_equal(to_ours(tensor, hf, shape), ours)


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_model_has_no_head(tied):
    form = QWEN2._replace(head=None) if tied else QWEN2
    assert ("lm_head.weight" in hf_shapes(form, ARCHITECTURE)) != tied
