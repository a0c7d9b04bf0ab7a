"""Greedy decoding against the reference's tokens."""

import numpy as np
import pytest

from ualm_jax.generate import SamplingParams, generate
from ualm_jax.tokens.types import Clip, TokenGrid
from ualm_jax.tokens.vocabulary import ASSISTANT


def prompt_of(golden, name, clips=()) -> TokenGrid:
    """The reference adds the role token to its prompts itself; ours end with it."""
    role = np.zeros((1, 8), np.int32)
    role[0, 0] = ASSISTANT
    tokens = np.concatenate([golden[f"greedy/{name}/prompt"].astype(np.int32), role])
    return TokenGrid(tokens, np.zeros(tokens.shape, np.float32), clips)


@pytest.mark.parametrize("name, scale", [("gen_cfg1", 1.0), ("gen_cfg3", 3.0), ("gen_cfg3_b", 3.0)])
def test_greedy_audio_equals_the_references(name, scale, model, golden):
    wanted = golden[f"greedy/{name}/tokens"]
    limit = len(wanted) - model.architecture.vocabulary.num_codebooks
    params = SamplingParams(temperature=0.0, cfg_scale=scale, max_frames=limit, reference_behaviour=True)
    (got,) = generate(model, [prompt_of(golden, name)], params)
    np.testing.assert_array_equal(got.tokens, wanted)
    assert got.end is None


def test_greedy_text_about_a_clip_equals_the_references(model, golden):
    prompt = prompt_of(golden, "text", (Clip(start=16, length=21),))
    params = SamplingParams(max_tokens=24)
    (got,) = generate(model, [prompt], params, modality="text", heard=[golden["und/features"]])
    np.testing.assert_array_equal(got.tokens + 256, golden["greedy/text/tokens"][:, 0])
