"""A prompt with sound in it: the encoder runs inside the prefill."""

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.audio_encoders import AF_WHISPER, OMNI, random_encoder

from ualm_jax.errors import UserError
from ualm_jax.generate import SamplingParams, generate
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.models.config import Architecture, DecoderConfig, Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.tokenizer import load_tokenizer, save_byte_tokenizer
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

PARAMS = SamplingParams(max_tokens=8)


@pytest.fixture(params=[OMNI, AF_WHISPER], ids=["omni", "af_whisper"])
def encoder(request):
    return random_encoder(request.param)


@pytest.fixture
def model(encoder):
    decoder = DecoderConfig(num_layers=2, width=32, num_heads=2, num_kv_heads=2, mlp_dim=64)
    config = Architecture(decoder, Vocabulary(256, 32), feature_width=encoder.output_width)
    return jax.jit(lambda: UALM(config, Execution(compute_dtype="float32"), nnx.Rngs(0)))()


def wav(seed: int, samples: int = 16000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=samples).astype(np.float32) * 0.1


def prompt(encoder, sound):
    clip = Message(Role.USER, Modality.CLIP, encoder.front_end.clip_length(len(sound)))
    question = Message(Role.USER, Modality.TEXT, np.array([72, 63], np.int32))
    return build_prompt([question, clip], Vocabulary(256, 32))


def test_hearing_in_the_prefill_equals_features_made_before(model, encoder):
    sounds = [wav(0), wav(1, 7000)]
    prompts = [prompt(encoder, sound) for sound in sounds]
    windows = [encoder.front_end.features(sound) for sound in sounds]
    inside = generate(model, prompts, PARAMS, modality="text", heard=windows, encoder=encoder)
    before = []
    for sound_windows in windows:
        parts = []
        for window in sound_windows:
            frames = -(-window.mel.shape[1] // encoder.front_end.chunk_frames) * encoder.front_end.chunk_frames
            mel = np.zeros((1, 128, frames), np.float32)
            mel[0, :, : window.mel.shape[1]] = window.mel
            features, counts = jax.jit(lambda encoder, mel, n: encoder(mel, n))(encoder, mel, np.int32([window.frames]))
            parts.append(np.asarray(features)[0, : int(counts[0])])
        before.append(np.concatenate(parts))
    outside = generate(model, prompts, PARAMS, modality="text", heard=before)
    for one, other in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)


def test_the_answer_depends_on_the_sound(model, encoder, tmp_path):
    model.adapter.kernel.set_value(100 * model.adapter.kernel[...])  # a fresh adapter whispers
    save_byte_tokenizer(tmp_path)
    parts = dict(model=model, encoder=encoder, tokenizer=load_tokenizer(tmp_path))
    pipeline = Pipeline(mesh=jax.sharding.get_mesh(), **parts, slots=1, window=64)
    tones = [np.sin(np.arange(16000, dtype=np.float32) * pitch) for pitch in (0.08, 0.47)]
    assert len({pipeline.ask(sound, "What?", max_tokens=8) for sound in (wav(0), *tones)}) == 3
    with pytest.raises(UserError, match="too few"):
        pipeline.ask(wav(0, 100), "What?")
