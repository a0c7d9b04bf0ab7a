"""Log-probabilities of given answers, and of answers that are being sampled."""

import dataclasses

import numpy as np
import pytest
from helpers import golden_model

from ualm_jax.generate import SamplingParams, generate
from ualm_jax.generate.score import score
from ualm_jax.tokens.layout import build_grid, build_prompt
from ualm_jax.tokens.types import Message, Modality, Role

VOCABULARY = golden_model.ARCHITECTURE.vocabulary
PARAMS = SamplingParams(min_frames=4, max_frames=9, max_tokens=10, text_temperature=2.0, text_top_k=0)


def text(role, seed, length):
    return Message(role, Modality.TEXT, np.random.default_rng(seed).integers(0, 384, length))


def codes(seed, length):
    content = np.random.default_rng(seed).integers(0, 32, (length, 8))
    return Message(Role.ASSISTANT, Modality.AUDIO, content)


CONVERSATIONS = [
    (text(Role.USER, 0, 5), codes(1, 9)),
    (text(Role.USER, 2, 40), text(Role.ASSISTANT, 3, 30)),
    (text(Role.USER, 4, 3), codes(5, 20), text(Role.USER, 6, 4), text(Role.ASSISTANT, 7, 6)),
]


def test_scores_are_the_softmax_of_the_whole_head(model):
    """Against plain logits over the vocabulary, one conversation at a time."""
    import jax

    from ualm_jax.tokens.types import Batch

    head = np.concatenate([np.asarray(model.text_head[...]), np.asarray(model.audio_head[...]).reshape(64, -1)], axis=1)
    for messages, found in zip(CONVERSATIONS, score(model, CONVERSATIONS), strict=True):
        grid = build_grid(messages, VOCABULARY)
        T = len(grid.tokens)
        one = np.ones((1, T), np.int32)
        batch = Batch(grid.tokens[None], grid.loss_weights[None], one, np.arange(T, dtype=np.int32)[None])
        hidden = np.asarray(jax.jit(lambda model, batch: model(batch))(model, batch))[0]
        wanted = np.zeros(grid.tokens.shape)
        for position in range(1, T):
            for stream in np.flatnonzero(grid.loss_weights[position]):
                state = hidden[position - 1] + np.asarray(model.stream_embed[...])[stream] * (stream > 0)
                logits = (state @ head).astype(np.float64)
                columns = logits if stream == 0 else logits[640:]
                wanted[position, stream] = logits[grid.tokens[position, stream]] - np.log(np.exp(columns).sum())
        assert found.shape == wanted.shape and (found != 0).sum() == (grid.loss_weights != 0).sum()
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_conversation_scores_the_same_in_any_company(model):
    together = score(model, CONVERSATIONS)
    for messages, found in zip(CONVERSATIONS[::-1], together[::-1], strict=True):
        np.testing.assert_allclose(score(model, [messages])[0], found, atol=1e-5)


def test_what_is_heard_counts(model):
    clip = Message(Role.USER, Modality.CLIP, 6)
    messages = [(clip, text(Role.ASSISTANT, seed, 5)) for seed in (0, 1)] + [CONVERSATIONS[0]]
    sounds = [np.random.default_rng(seed).normal(size=(6, 48)).astype(np.float32) for seed in (0, 1)]
    packed = score(model, messages, heard=[*sounds, None])
    for index in (0, 1):
        np.testing.assert_allclose(score(model, [messages[index]], heard=[sounds[index]])[0], packed[index], atol=1e-5)
    assert not np.allclose(score(model, messages, heard=[*sounds[::-1], None])[0], packed[0], atol=1e-3)


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_generation_returns_what_scoring_finds(modality, model):
    """Guided, with a temperature and filters: the log-probabilities are the model's own."""
    asks = [text(Role.USER, seed, 4 + seed) for seed in range(3)]
    params = [dataclasses.replace(PARAMS, seed=seed, cfg_scale=(1.0, 3.0, 2.0)[seed], top_p=0.9) for seed in range(3)]
    prompts = [build_prompt([ask], VOCABULARY) for ask in asks]
    segments = generate(model, prompts, params, modality=modality, logprobs=True)
    kind = Modality.TEXT if modality == "text" else Modality.AUDIO
    answers = [(ask, Message(Role.ASSISTANT, kind, s.tokens)) for ask, s in zip(asks, segments, strict=True)]
    for prompt, segment, found in zip(prompts, segments, score(model, answers), strict=True):
        found = found[len(prompt.tokens) + 1 :]  # after the modality token
        length = len(segment.logprobs) - (segment.end == "eot")  # scored as a conversation that is over
        assert length > 4 and (segment.logprobs[:length, 0] < 0).all()
        np.testing.assert_allclose(segment.logprobs[:length], found[:length], atol=1e-4)


def test_logprobs_are_only_made_when_asked_for(model):
    prompt = build_prompt([text(Role.USER, 0, 4)], VOCABULARY)
    assert generate(model, [prompt], PARAMS)[0].logprobs is None
