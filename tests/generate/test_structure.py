"""Whatever is drawn from the allowed columns is a delayed grid."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ualm_jax.errors import UserError
from ualm_jax.generate.request import finish
from ualm_jax.generate.sampling import draw
from ualm_jax.generate.structure import OPEN, allowed_columns, column_ids
from ualm_jax.tokens.delay import delay, undelay
from ualm_jax.tokens.vocabulary import EOS, EOT, Vocabulary


@functools.partial(jax.jit, static_argnames="vocabulary")
def allowed_at(step, frames, least, most, vocabulary):
    return allowed_columns(step, frames[None], least[None], most[None], vocabulary)[0]


@pytest.mark.parametrize("Q", [1, 2, 5])
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 2**31))
def test_any_choice_among_allowed_columns_undelays_within_the_bounds(Q, least, extra, seed):
    rng = np.random.default_rng(seed)
    vocabulary = Vocabulary(text_size=3, codebook_size=4, num_codebooks=Q)
    ids, most, frames, rows = column_ids(vocabulary), least + extra, OPEN, []
    for step in range(most + Q):
        mask = np.asarray(allowed_at(*map(jnp.int32, (step, frames, least, most)), vocabulary))
        assert mask.any(axis=1).all()
        column = np.array([rng.choice(np.flatnonzero(row)) for row in mask])
        rows.append(ids[np.arange(Q), column])
        if column[0] == 0 and frames == OPEN:
            frames = step
        if rows[-1][0] in (EOS, EOT):
            break
    assert rows[-1][0] in (EOS, EOT) and not rows[-1][1:].any()
    assert least <= len(undelay(np.array(rows[:-1]), vocabulary)) <= most


def test_every_delayed_grid_is_allowed():
    vocabulary = Vocabulary(text_size=3, codebook_size=4, num_codebooks=3)
    codes = np.random.default_rng(0).integers(0, 4, (6, 3))
    ids = column_ids(vocabulary)
    for step, row in enumerate(delay(codes, vocabulary)):
        frames = OPEN if step <= 6 else 6
        mask = np.asarray(allowed_at(*map(jnp.int32, (step, frames, 1, 20)), vocabulary))
        assert all(mask[s, ids[s] == token].all() for s, token in enumerate(row))


def test_audio_from_logits_that_are_nan_is_refused():
    """What `draw` gives then is a column that no stream has, also where only one of many logits is NaN."""
    vocabulary = Vocabulary(text_size=3, codebook_size=4, num_codebooks=2)
    ids = column_ids(vocabulary)
    one, seed, drawn = np.ones((1, 2), np.float32), np.zeros(1, np.uint32), jax.jit(draw, static_argnames="greedy")
    each = np.full((1, *ids.shape), np.nan, np.float32)
    single = np.where(np.arange(ids.shape[1]) == 3, each, np.float32(0))
    for logits in (each, single):
        for top_k, greedy in ((1, False), (3, False), (0, False), (1, True)):
            allowed, top_k = np.ones_like(logits, bool), np.full((1, 2), top_k, np.int32)
            columns = drawn(logits, allowed, one, top_k, seed, jnp.int32(0), greedy=greedy)
            assert (np.asarray(columns) == ids.shape[1]).all()
    rows = np.zeros((6, 2), np.int32)
    with pytest.raises(UserError, match="the audio of this answer came from logits that are NaN or infinite"):
        finish(rows, "audio", vocabulary, reference=False)
