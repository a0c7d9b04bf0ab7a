"""The draw of one token, and settings that check themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ualm_jax.errors import UserError
from ualm_jax.generate.sampling import SamplingParams, draw, guide, kth_largest


@jax.jit
def many_draws(logits, allowed, temperature, top_k):
    """[n, B, S] of independent steps."""
    seed = jnp.arange(logits.shape[0], dtype=jnp.uint32)
    steps = jnp.arange(2000, dtype=jnp.int32)
    return jax.lax.map(lambda step: draw(logits, allowed, temperature, top_k, seed, step), steps)


def test_frequencies_are_the_softmax_of_the_top_k_of_what_is_allowed():
    logits = jnp.array([[[2.0, 1.0, 0.0, -1.0, 9.0], [0.0, 1.0, 2.0, 3.0, 4.0]]])
    allowed = jnp.array([[[True, True, True, True, False], [True] * 5]])
    drawn = many_draws(logits, allowed, jnp.array([[2.0, 1.0]]), jnp.array([[3, 0]]))
    first = np.exp(np.array([1.0, 0.5, 0.0, -np.inf, -np.inf]))
    second = np.exp(np.arange(5.0))
    for stream, wanted in enumerate([first, second]):
        got = np.bincount(drawn[:, 0, stream], minlength=5) / len(drawn)
        np.testing.assert_allclose(got, wanted / wanted.sum(), atol=0.04)
        assert not got[wanted == 0].any()


def test_temperature_zero_and_top_1_take_the_likeliest():
    logits = jax.random.normal(jax.random.key(0), (1, 2, 40))
    drawn = many_draws(logits, jnp.ones(logits.shape, bool), jnp.array([[0.0, 3.0]]), jnp.array([[7, 1]]))
    np.testing.assert_array_equal(drawn, np.broadcast_to(jnp.argmax(logits, axis=-1), drawn.shape))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=12, max_size=12), st.integers(1, 12))
def test_the_kth_largest_is_what_sorting_finds(values, k):
    x = jnp.array([values], jnp.float32)
    wanted = np.sort(np.asarray(x[0]))[-k]
    np.testing.assert_array_equal(jax.jit(kth_largest)(x, jnp.array([k]))[0], wanted)


def test_guidance_of_scale_1_is_exactly_the_condition():
    cond, uncond = jax.random.normal(jax.random.key(0), (2, 2, 3, 5))
    mixed = guide(cond, uncond, jnp.array([1.0, 3.0]))
    np.testing.assert_array_equal(mixed[0], cond[0])
    np.testing.assert_allclose(mixed[1], 3 * cond[1] - 2 * uncond[1], atol=1e-5)


@pytest.mark.parametrize(
    "field, value",
    [
        ("temperature", -0.1),
        ("temperature", (0.5, float("nan"))),
        ("top_k", (1, -1)),
        ("cfg_scale", -1.0),
        ("min_frames", 0),
        ("max_frames", 0),
        ("max_tokens", 0),
        ("seed", 2**32),
    ],
)
def test_a_wrong_setting_is_named(field, value):
    with pytest.raises(UserError, match=f"sampling.{field} must be"):
        SamplingParams(**{field: value})


def test_a_wrong_number_of_streams_is_named():
    with pytest.raises(UserError, match="sampling.top_k must be one number or 8"):
        SamplingParams(top_k=(1, 2)).per_stream("top_k", 8)
