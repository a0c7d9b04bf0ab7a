"""Delay and undelay are exact inverses."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ualm_jax.tokens.delay import delay, undelay
from ualm_jax.tokens.vocabulary import Vocabulary


@st.composite
def codes_and_vocabulary(draw):
    num_codebooks = draw(st.integers(1, 9))
    codebook_size = draw(st.integers(1, 40))
    shape = (draw(st.integers(1, 30)), num_codebooks)
    codes = draw(hnp.arrays(np.int32, shape, elements=st.integers(0, codebook_size - 1)))
    return codes, Vocabulary(10, codebook_size, num_codebooks)


@hypothesis.given(codes_and_vocabulary())
@hypothesis.settings(deadline=None)
def test_undelay_inverts_delay(case):
    codes, vocabulary = case
    np.testing.assert_array_equal(undelay(delay(codes, vocabulary), vocabulary), codes)


@hypothesis.given(codes_and_vocabulary(), st.data())
@hypothesis.settings(deadline=None)
def test_undelay_refuses_whatever_delay_cannot_have_made(case, data):
    codes, vocabulary = case
    grid = delay(codes, vocabulary)
    row = data.draw(st.integers(0, grid.shape[0] - 1))
    q = data.draw(st.integers(0, grid.shape[1] - 1))
    pad = vocabulary.audio_pad(q)
    grid[row, q] = pad + 1 if grid[row, q] == pad else pad
    with pytest.raises(ValueError):
        undelay(grid, vocabulary)


def test_the_delayed_grid_is_the_references(golden):
    vocabulary = Vocabulary(384, 32)
    grid = delay(golden["codec/codes_no_delay"].T, vocabulary) - vocabulary.audio_start
    np.testing.assert_array_equal(grid, golden["codec/codes_delayed_with_offsets"])
