"""The draw of one token, and settings that check themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ualm_jax.errors import UserError
from ualm_jax.generate.kth_largest import in_one_kernel, kth_largest
from ualm_jax.generate.sampling import SamplingParams, draw, guide, penalize


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


def test_the_kernel_for_gpus_finds_what_sorting_finds():
    """By its own steps. Rows of codes, with ties, zeros of both signs, and columns that may not be drawn."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8, 1027), np.float32).round(1)
    x[0, :, 5:900] = -np.inf
    x[1, 0, ::2], x[1, 1] = -0.0, np.float32(-1e-45)
    x[2, 0, 3] = np.inf
    k = rng.integers(1, 1028, (3, 8)).astype(np.int32)
    k[:, 0], k[:, 1] = 1, 1027
    kernel = functools.partial(in_one_kernel, interpret=True)
    found = jax.jit(jax.shard_map(kernel, in_specs=(jax.P(), jax.P()), out_specs=jax.P(), check_vma=False))(x, k)
    np.testing.assert_array_equal(found, np.take_along_axis(np.sort(x), 1027 - k[..., None], axis=-1)[..., 0])
    np.testing.assert_array_equal(found, jax.jit(kth_largest)(x, k))


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


@pytest.mark.parametrize("top_k, top_p, min_p", [(0, 0.7, 0.0), (6, 0.8, 0.0), (0, 1.0, 0.2), (9, 0.9, 0.1)])
def test_what_can_be_drawn_is_what_transformers_leaves(top_k, top_p, min_p):
    import torch
    from transformers.generation import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = np.random.default_rng(0).normal(size=(4, 1, 12)).astype(np.float32) * 2
    left = torch.from_numpy(logits[:, 0] / np.float32(1.5))
    for warper in [TopKLogitsWarper(top_k or 12), TopPLogitsWarper(top_p), MinPLogitsWarper(min_p)]:
        left = warper(None, left)

    @jax.jit
    def draws(logits):
        each = [jnp.full((4, 1), value) for value in (1.5, top_k, top_p, min_p)]
        seed, steps = jnp.arange(4, dtype=jnp.uint32), jnp.arange(3000)
        allowed = jnp.ones(logits.shape, bool)
        return jax.lax.map(
            lambda step: draw(logits, allowed, *each[:2], seed, step, top_p=each[2], min_p=each[3]), steps
        )

    drawn = np.asarray(draws(logits))[:, :, 0]
    for row in range(4):
        wanted = torch.softmax(left[row], -1).numpy()
        np.testing.assert_allclose(np.bincount(drawn[:, row], minlength=12) / 3000, wanted, atol=0.04)
        assert set(drawn[:, row]) <= set(np.flatnonzero(wanted))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 5), st.integers(0, 20), st.floats(0.01, 1), st.floats(0, 1))
def test_nothing_that_is_not_allowed_is_ever_drawn(seed, temperature, top_k, top_p, min_p):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(8, 2, 12)).astype(np.float32) * 10.0 ** rng.integers(-3, 5)
    allowed = rng.random(logits.shape) < 0.3
    allowed[..., rng.integers(12)] = True
    seeds = rng.integers(0, 2**32, 8, dtype=np.uint32)
    drawn = np.asarray(filtered_draw(logits, allowed, seeds, np.float32([temperature, top_p, min_p]), top_k))
    assert np.take_along_axis(allowed, drawn[..., None], axis=-1).all()


@jax.jit
def filtered_draw(logits, allowed, seeds, numbers, top_k):
    temperature, top_p, min_p = (jnp.full((8, 2), number) for number in numbers)
    top_k = jnp.full((8, 2), top_k)
    return draw(logits, allowed, temperature, top_k, seeds, jnp.int32(0), top_p=top_p, min_p=min_p)


def test_a_repetition_penalty_is_that_of_transformers():
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
    said = np.array([[1, 4], [4, 8]])
    wanted = RepetitionPenaltyLogitsProcessor(1.7)(torch.from_numpy(said), torch.from_numpy(logits.copy()))
    seen = np.zeros((2, 9), bool)
    np.put_along_axis(seen, said, True, axis=1)
    np.testing.assert_allclose(penalize(jnp.array(logits), jnp.array(seen), jnp.array([1.7, 1.7])), wanted, rtol=1e-6)
