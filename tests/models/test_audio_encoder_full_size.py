"""The audio encoders at their released sizes, random weights, float32: the same embeddings as `transformers`."""

import numpy as np
import pytest
import torch
from helpers.audio_encoders import run
from transformers import AudioFlamingo3Encoder, AudioFlamingo3EncoderConfig
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

from ualm_jax.models.audio_encoder import AFWhisperConfig, OmniConfig, load_state

pytestmark = pytest.mark.slow


def pair(theirs, config_class):
    """Theirs as it was initialised, norms disturbed so that they show; and ours with its weights."""
    for name, parameter in theirs.named_parameters():
        if "norm" in name or "ln_post" in name:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.1)
    theirs.eval()
    config = config_class.from_hf(theirs.config.to_dict(), compute_dtype="float32")
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    assert sum(tensor.size for tensor in tensors.values()) > 600e6
    return theirs, load_state(config, tensors)


def noise(lengths, num_frames):
    mels = np.random.default_rng(1).standard_normal((len(lengths), 128, num_frames), np.float32)
    return mels * (np.arange(num_frames) < np.array(lengths)[:, None])[:, None]


def test_omni_equals_transformers():
    torch.manual_seed(0)
    theirs, ours = pair(Qwen2_5OmniAudioEncoder(Qwen2_5OmniAudioEncoderConfig()), OmniConfig)
    lengths = [200, 200, 131]  # chunks
    mels = noise(lengths, 200)
    embeddings, counts = run(ours, mels, lengths)
    joined = np.concatenate([mel[:, :length] for mel, length in zip(mels, lengths, strict=True)], axis=1)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(joined), feature_lens=torch.tensor(lengths)).last_hidden_state.numpy()
    heard = np.concatenate([clip[:count] for clip, count in zip(embeddings, counts, strict=True)])
    np.testing.assert_allclose(heard, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


def test_af_whisper_equals_transformers():
    torch.manual_seed(0)
    theirs, ours = pair(AudioFlamingo3Encoder(AudioFlamingo3EncoderConfig()), AFWhisperConfig)
    lengths = [3000, 1711]
    mels = noise(lengths, 3000)
    embeddings, counts = run(ours, mels, lengths)
    mask = torch.tensor(np.arange(3000) < np.array(lengths)[:, None]).long()
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(mels), input_features_mask=mask).last_hidden_state.numpy()
    assert counts.tolist() == [750, 428]
    for clip, their_clip, count in zip(embeddings, expected, counts, strict=True):
        bound = 1e-4 * max(1.0, np.abs(their_clip).max())
        np.testing.assert_allclose(clip[:count], their_clip[:count], rtol=0, atol=bound)
