"""What must not change an encoder's answer: the batch, the neighbouring chunk, the devices. And where it goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.audio_encoders import AF_WHISPER, OMNI, filled, jitted, random_encoder, run

from ualm_jax.audio.mel import MelFrontEnd, feature_indices, stack_windows
from ualm_jax.models.audio_encoder import AudioEncoder, encode_rows
from ualm_jax.models.config import Architecture, DecoderConfig, Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import RULES, spec
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import Vocabulary

CONFIGS = pytest.mark.parametrize("config", [OMNI, AF_WHISPER], ids=["omni", "af_whisper"])


def clips(num, num_frames):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, num_frames + 1, num).astype(np.int32)
    return rng.normal(size=(num, 128, num_frames)).astype(np.float32), lengths


@CONFIGS
def test_a_batch_equals_its_single_clips(config):
    encoder = random_encoder(config)
    mels, lengths = clips(6, 60)
    together, counts = run(encoder, mels, lengths)
    for i in range(6):
        alone, count = run(encoder, mels[i : i + 1], lengths[i : i + 1])
        assert count[0] == counts[i]
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5, rtol=0)


def test_a_chunk_equals_the_same_chunk_alone():
    encoder = random_encoder(OMNI)
    mels, _ = clips(1, 60)
    whole, _ = run(encoder, mels, [47])
    for start, length in ((0, 20), (20, 20), (40, 7)):
        chunk, (count,) = run(encoder, mels[:, :, start : start + 20], [length])
        np.testing.assert_allclose(whole[0, start // 4 : start // 4 + count], chunk[0, :count], atol=1e-5, rtol=0)


@CONFIGS
def test_a_longer_padding_changes_nothing(config):
    """An empty window beside the clip, or (Omni) empty chunks behind it."""
    encoder = random_encoder(config)
    mels, _ = clips(1, 60)
    exact, _ = run(encoder, mels, [55])
    beside, counts = run(encoder, np.concatenate([mels, np.zeros_like(mels)]), [55, 0])
    np.testing.assert_allclose(beside[0], exact[0], atol=1e-5, rtol=0)
    assert counts.tolist() == [14, 0] and not beside[1].any()
    if config is OMNI:
        behind, _ = run(encoder, np.pad(mels, ((0, 0), (0, 0), (0, 40)), constant_values=9.0), [55])
        np.testing.assert_allclose(behind[0, :14], exact[0, :14], atol=1e-5, rtol=0)


@CONFIGS
def test_eight_devices_equal_one_forwards_and_backwards(config):
    """Four rows of two windows."""
    mels, lengths = clips(8, 60)
    mels, lengths = mels.reshape(4, 2, 128, 60), lengths.reshape(4, 2)

    def loss(encoder, mels, lengths):
        embeddings = encode_rows(encoder, mels, lengths)
        return jnp.mean(jnp.sin(embeddings)), embeddings

    def results(mesh):
        with jax.set_mesh(mesh):
            encoder = random_encoder(config)
            rows = (
                jax.device_put(mels, jax.NamedSharding(mesh, spec("batch", None, None, None))),
                jax.device_put(lengths, jax.NamedSharding(mesh, spec("batch", None))),
            )
            grads, embeddings = jax.jit(jax.grad(loss, has_aux=True))(encoder, *rows)
            shardings = {leaf.sharding.spec for leaf in jax.tree.leaves(encoder)}
            assert {entry for used in shardings for entry in used if entry} == {RULES["embed"], RULES["mlp"]}
            return jax.tree.map(np.asarray, (nnx.to_pure_dict(nnx.state(grads)), embeddings))

    one = results(make_mesh(MeshConfig(), jax.devices()[:1]))
    eight = results(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=0), one, eight)


@CONFIGS
def test_an_encoder_is_what_the_model_asks_for(config):
    encoder = random_encoder(config)
    assert isinstance(encoder, AudioEncoder)
    assert encoder.front_end == config.front_end
    mels, lengths = clips(2, 60)
    assert run(encoder, mels, lengths)[0].shape == (2, 15, encoder.output_width)


def batch_with_clips(front_end: MelFrontEnd, num_frames: int, num_windows: int):
    """Two rows of 100 positions: a clip at 4 in both, and a second one at 50 in the other."""
    rng = np.random.default_rng(0)
    wavs = [[(4, 0.71)], [(4, 0.35), (50, 0.58)]]  # position, seconds
    mels, lengths, index = [], [], np.full((2, 100), -1, np.int32)
    for row, placed in enumerate(wavs):
        windows, slots = [], []
        for start, seconds in placed:
            wav = rng.normal(size=int(16_000 * seconds)).astype(np.float32)
            windows += front_end.features(wav)
            slots += range(start, start + front_end.clip_length(len(wav)))
        index[row, slots] = feature_indices([window.frames for window in windows], num_frames)
        stacked, frames = stack_windows(windows, num_frames)
        empty = num_windows - len(windows)
        mels.append(np.pad(stacked, ((0, empty), (0, 0), (0, 0))))
        lengths.append(np.pad(frames, (0, empty)))
    batch = Batch(
        tokens=np.ones((2, 100, 8), np.int32),
        loss_weights=np.zeros((2, 100, 8), np.float32),
        segment_ids=np.ones((2, 100), np.int32),
        positions=np.tile(np.arange(100, dtype=np.int32), (2, 1)),
        feature_index=index,
    )
    return batch, np.stack(mels), np.stack(lengths)


@pytest.mark.parametrize(("config", "num_frames"), [(OMNI, 80), (AF_WHISPER, 60)], ids=["omni", "af_whisper"])
def test_a_jitted_step_hears_every_clip_in_its_slots_and_trains_the_adapter_alone(config, num_frames):
    encoder = random_encoder(config)
    model_config = Architecture(
        decoder=DecoderConfig(num_layers=1, width=16, num_heads=2, num_kv_heads=1, mlp_dim=32),
        vocabulary=Vocabulary(text_size=64, codebook_size=8),
        feature_width=config.output_width,
    )
    model = filled(lambda: UALM(model_config, Execution(compute_dtype="float32"), nnx.Rngs(0)))
    batch, mels, lengths = batch_with_clips(config.front_end, num_frames, num_windows=3)

    embed = jax.jit(lambda model, tokens: model.embed_tokens(tokens))
    adapt = jax.jit(lambda model, features: model.adapter(features))

    @jax.jit
    def step(model, encoder, batch, mels, lengths):
        def loss(model):
            heard = batch._replace(features=encode_rows(encoder, mels, lengths))
            return jnp.sum(model(heard) ** 2), model.embed_batch(heard)

        (_, embedded), grads = jax.value_and_grad(loss, has_aux=True)(model)
        return embedded, grads

    embedded, grads = step(model, encoder, batch, mels, lengths)
    tokens_only = embed(model, batch.tokens)
    for row in range(2):
        expected = np.array(tokens_only)[row]
        alone, counts = jitted(encoder, mels[row], lengths[row])
        adapted = np.asarray(adapt(model, alone))
        frames = [frame for window, count in zip(adapted, np.asarray(counts), strict=True) for frame in window[:count]]
        slots = np.flatnonzero(np.asarray(batch.feature_index)[row] >= 0)
        assert len(slots) == len(frames) > 0
        expected[slots] = frames
        np.testing.assert_allclose(np.asarray(embedded)[row], expected, atol=1e-5, rtol=0)
    assert np.abs(grads.adapter.kernel[...]).max() > 0
