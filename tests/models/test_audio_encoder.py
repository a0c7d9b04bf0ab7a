"""The audio encoders against transformers: float32, modules to 1e-5, whole encoders to 1e-4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.audio_encoders import jitted, run
from transformers import AudioFlamingo3Config, AudioFlamingo3Encoder, AudioFlamingo3EncoderConfig
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import (
    Qwen2_5OmniAudioEncoderConfig,
    Qwen2_5OmniThinkerConfig,
)
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
    Qwen2_5OmniAudioEncoder,
    SinusoidsPositionEmbedding,
)

from ualm_jax.audio.mel import frames_out
from ualm_jax.errors import UserError
from ualm_jax.models.attention import AttentionSpec
from ualm_jax.models.audio_encoder import AFWhisperConfig, OmniConfig, build, load_state
from ualm_jax.models.audio_encoder.layers import Conv
from ualm_jax.models.audio_encoder.omni import sinusoids
from ualm_jax.models.audio_encoder.weights import AF_WHISPER, OMNI


def _random(model):
    """Weights large enough that every one of them shows in the output."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def _numpy(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def hf_omni(n_window=100, **sizes):
    sizes = {"d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 64} | sizes
    return _random(Qwen2_5OmniAudioEncoder(Qwen2_5OmniAudioEncoderConfig(n_window=n_window, output_dim=24, **sizes)))


def hf_af_whisper():
    config = AudioFlamingo3EncoderConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_source_positions=60,
    )
    return _random(AudioFlamingo3Encoder(config))


def ours(model, config_class):
    config = config_class.from_hf(model.config.to_dict(), compute_dtype="float32")
    return load_state(config, _numpy(model))


def _mels(lengths, num_frames, fill=0.0):
    rng = np.random.default_rng(1)
    mels = np.full((len(lengths), 128, num_frames), fill, np.float32)
    for mel, length in zip(mels, lengths, strict=True):
        mel[:, :length] = rng.normal(size=(128, length))
    return mels


@pytest.mark.parametrize("n_window", [100, 5, 4])
def test_omni_equals_transformers(n_window):
    """Short clips, whole chunks, odd ones, one frame over. Beyond a clip the input may hold anything."""
    model = hf_omni(n_window)
    encoder = ours(model, OmniConfig)
    chunk = 2 * n_window
    lengths = [3, 4, chunk, 2 * chunk, chunk + 1, chunk + 3, 2 * chunk - 1, 2 * chunk - 5]
    mels = _mels(lengths, 2 * chunk, fill=7.0)
    embeddings, counts = run(encoder, mels, lengths)
    joined = np.concatenate([mel[:, :length] for mel, length in zip(mels, lengths, strict=True)], axis=1)
    with torch.no_grad():
        theirs = model(torch.tensor(joined), feature_lens=torch.tensor(lengths)).last_hidden_state.numpy()
    heard = np.concatenate([clip[:count] for clip, count in zip(embeddings, counts, strict=True)])
    np.testing.assert_allclose(heard, theirs, atol=1e-4, rtol=0)
    assert embeddings.shape == (8, chunk // 2, 24)
    assert all(not np.any(clip[count:]) for clip, count in zip(embeddings, counts, strict=True))


def test_af_whisper_equals_transformers():
    model = hf_af_whisper()
    encoder = ours(model, AFWhisperConfig)
    lengths = [3, 4, 50, 61, 118, 119, 120]
    mels = _mels(lengths, 120, fill=-1.5)  # padded silence, which the convolutions read
    embeddings, counts = run(encoder, mels, lengths)
    mask = torch.tensor(np.arange(120) < np.array(lengths)[:, None]).long()
    with torch.no_grad():
        theirs = model(torch.tensor(mels), input_features_mask=mask).last_hidden_state.numpy()
    assert counts.tolist() == model._get_feat_extract_output_lengths(torch.tensor(lengths))[1].tolist()
    for clip, their_clip, count in zip(embeddings, theirs, counts, strict=True):
        np.testing.assert_allclose(clip[:count], their_clip[:count], atol=1e-4, rtol=0)
        assert not np.any(clip[count:])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("time", [7, 8])
def test_a_convolution_equals_torchs(stride, time):
    theirs = _random(torch.nn.Conv1d(6, 5, 3, stride=stride, padding=1))
    conv = Conv(6, 5, stride, "float32", nnx.Rngs(0))
    conv.kernel.set_value(jnp.array(theirs.weight.detach().numpy().T))
    conv.bias.set_value(jnp.array(theirs.bias.detach().numpy()))
    x = np.random.default_rng(0).normal(size=(2, time, 6)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(x).transpose(1, 2)).transpose(1, 2).numpy()
    np.testing.assert_allclose(conv(jnp.array(x)), expected, atol=1e-5, rtol=0)


def test_positions_equal_transformers():
    theirs = SinusoidsPositionEmbedding(1500, 1280).positional_embedding
    np.testing.assert_allclose(sinusoids(100, 1280), theirs[:100].numpy(), atol=1e-5, rtol=0)


def test_a_layer_equals_transformers():
    model = hf_af_whisper()
    layers = ours(model, AFWhisperConfig).layers
    layer = jax.tree.map(lambda stacked: stacked[1], layers)
    x = np.random.default_rng(0).normal(size=(2, 9, 32)).astype(np.float32)
    with torch.no_grad():
        expected = model.layers[1](torch.tensor(x), None).numpy()
    attention = AttentionSpec(jnp.ones((2, 9), jnp.int32), causal=False)
    found = jax.jit(lambda layer, x: layer(x, attention))(layer, jnp.array(x))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param([*range(3, 206), 399, 400, 401, 999, 1000], id="of one chunk and some more"),
        pytest.param(range(206, 1001), marks=pytest.mark.slow, id="of five chunks"),
    ],
)
def test_the_promised_length_is_the_real_one_for_every_number_of_frames(lengths):
    model = hf_omni(d_model=8, encoder_layers=1, encoder_attention_heads=1, encoder_ffn_dim=8)
    for length in lengths:
        with torch.no_grad():
            theirs = model(torch.zeros(128, length), feature_lens=torch.tensor([length])).last_hidden_state
        assert frames_out(length) == len(theirs)
    assert [frames_out(length) for length in range(3)] == [0, 0, 0]


def test_bfloat16_compute_stays_near_float32():
    model = hf_omni()
    lengths = [333, 120]
    mels = _mels(lengths, 400)
    exact, _ = run(ours(model, OmniConfig), mels, lengths)
    config = OmniConfig.from_hf(model.config.to_dict(), param_dtype="bfloat16", compute_dtype="bfloat16")
    rounded, _ = run(load_state(config, _numpy(model)), mels, lengths)
    assert rounded.dtype == jnp.bfloat16
    error = np.linalg.norm(rounded.astype(np.float32) - exact) / np.linalg.norm(exact)
    assert error < 0.03  # bf16 keeps 8 bits


@pytest.mark.parametrize(
    ("config", "hf_class", "hf_config"),
    [
        (OmniConfig(), Qwen2_5OmniAudioEncoder, Qwen2_5OmniAudioEncoderConfig()),
        (AFWhisperConfig(), AudioFlamingo3Encoder, AudioFlamingo3EncoderConfig()),
    ],
)
def test_default_sizes_are_the_released_models(config, hf_class, hf_config):
    assert type(config).from_hf(hf_config.to_dict()) == config
    with torch.device("meta"):
        theirs = hf_class(hf_config).state_dict()
    theirs.pop("audio_bos_eos_token.weight", None)
    encoder = nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(encoder))]
    assert sum(sizes) == sum(tensor.numel() for tensor in theirs.values())
    embeddings, _ = jax.eval_shape(jitted, encoder, jnp.zeros((2, 128, 3000)), jnp.array([3000, 100]))
    assert (embeddings.shape, embeddings.dtype) == ((2, 750, config.output_width), jnp.bfloat16)


def test_the_config_is_found_inside_a_whole_models_config():
    thinker = Qwen2_5OmniThinkerConfig(audio_config={"d_model": 40, "encoder_layers": 2}).to_dict()
    for config in (
        {"model_type": "qwen2_5_omni", "thinker_config": thinker},
        thinker,
        thinker["audio_config"],
    ):
        found = OmniConfig.from_hf(config, normalize=False)
        assert (found.width, found.num_layers, found.normalize) == (40, 2, False)
    whole = AudioFlamingo3Config(audio_config={"model_type": "audioflamingo3_encoder", "hidden_size": 640})
    assert AFWhisperConfig.from_hf(whole.to_dict()).width == 640
    with pytest.raises(UserError, match="audioflamingo3_encoder"):
        AFWhisperConfig.from_hf(thinker)
    with pytest.raises(UserError, match="num_mel_bins must be 128, got 80"):
        OmniConfig.from_hf(thinker["audio_config"] | {"num_mel_bins": 80})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_layers", 0),
        ("num_heads", 7),
        ("compute_dtype", "float16"),
        ("half_chunk", -1),
        ("max_seconds", 0.0),
    ],
)
def test_an_impossible_config_is_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"model.audio_encoder.*{field}"):
        OmniConfig(**{field: value})


def test_every_tensor_of_a_checkpoint_is_accounted_for():
    model = hf_omni()
    config = OmniConfig.from_hf(model.config.to_dict())
    tensors = _numpy(model)
    assert "audio_bos_eos_token.weight" in tensors  # in the checkpoint, used by nothing

    def without(name):
        return {key: value for key, value in tensors.items() if key != name}

    with pytest.raises(UserError, match="'layers.2.fc1.bias' is missing"):
        load_state(config, without("layers.2.fc1.bias"))
    with pytest.raises(UserError, match=r"1 tensors are not of this encoder: \['layers.3.fc1.bias'\]"):
        load_state(config, tensors | {"layers.3.fc1.bias": tensors["layers.2.fc1.bias"]})
    with pytest.raises(UserError, match=r"'proj.weight' must have shape \(24, 32\), got \(32, 24\)"):
        load_state(config, tensors | {"proj.weight": tensors["proj.weight"].T})


@pytest.mark.parametrize(("table", "model"), [(OMNI, hf_omni), (AF_WHISPER, hf_af_whisper)])
def test_the_name_tables_name_each_tensor_once(table, model):
    names = [name.format(layer=layer) for name, _, _ in table for layer in range(3 if "{" in name else 1)]
    assert sorted(names) == sorted(set(_numpy(model())) - {"audio_bos_eos_token.weight"})


def test_wrong_numbers_of_frames_are_programming_errors():
    omni, af_whisper = ours(hf_omni(), OmniConfig), ours(hf_af_whisper(), AFWhisperConfig)
    with pytest.raises(ValueError, match="multiple of the chunk of 200"):
        omni(jnp.zeros((1, 128, 100)), jnp.array([100]))
    with pytest.raises(ValueError, match="whole window of 120"):
        af_whisper(jnp.zeros((1, 128, 100)), jnp.array([100]))
