"""What is trained is a whole X-codec: stored, it computes the same here and in `transformers`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import xcodec_oracle
from helpers.sounds import sounds
from transformers import XcodecConfig as TheirConfig
from transformers.models.xcodec.modeling_xcodec import XcodecResidualVectorQuantization

from ualm_jax.codecs.xcodec import model
from ualm_jax.codecs.xcodec.config import DacConfig, XCodecConfig, bandwidths
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.principal import init_principal
from ualm_jax.codecs.xcodec.quantizer import kmeans
from ualm_jax.codecs.xcodec.rvq import dequantize, quantize
from ualm_jax.codecs.xcodec.trainable import NO_SEMANTICS, Trainable
from ualm_jax.codecs.xcodec.weights import read_directory, save_directory

SMALL = XCodecConfig(
    target_bandwidths=bandwidths(3, 16, 320),
    codebook_size=16,
    acoustic=DacConfig(
        encoder_hidden_size=4,
        downsampling_ratios=(20, 4, 2, 2),
        hidden_size=15,
        decoder_hidden_size=32,
        upsampling_ratios=(2, 2, 4, 20),
    ),
    semantic=NO_SEMANTICS,
)
NETWORKS = {
    "linear ends": Trainable(SMALL, linear_ends=True),
    "whole": Trainable(SMALL, linear_ends=False),
}


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request, tmp_path_factory):
    """A network, its parameters, codebooks of its own vectors, and the folder it is stored in."""
    network = NETWORKS[request.param]
    wavs = np.stack(list(sounds(1.0).values()))
    # Parameters as no initialisation leaves them: all biases and snakes differ.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.02 * rng.standard_normal(leaf.shape), jnp.float32),
        network.narrowed(init_random(network.config, 1)),
    )
    vectors = jax.jit(network.vectors)(params, jnp.asarray(wavs))
    books, _, _ = kmeans(
        vectors.reshape(-1, network.config.hidden_size),
        network.config.num_quantizers,
        network.config.codebook_size,
        3,
        jax.random.key(0),
    )
    folder = tmp_path_factory.mktemp("trained")
    save_directory(network.widened(params, books.embed), network.config, folder)
    return network, params, np.asarray(books.embed), folder, wavs


def test_the_stored_codec_has_the_codes_and_the_sound_of_training(trained):
    network, params, embed, folder, wavs = trained
    codec = XCodec.from_directory(folder)
    codes = np.asarray(jax.jit(quantize)(jnp.asarray(embed), jax.jit(network.vectors)(params, jnp.asarray(wavs))))
    sound = np.asarray(jax.jit(network.waveform)(params, jax.jit(dequantize)(jnp.asarray(embed), jnp.asarray(codes))))
    stored = np.stack(codec.encode_batch(list(wavs)))
    assert np.mean(stored != codes) < 2e-3  # a near tie
    np.testing.assert_allclose(codec.decode_batch(list(codes)), sound, atol=2e-5 * np.abs(sound).max() + 1e-6)


def test_layers_that_add_zero_are_left_out_without_a_change(trained, monkeypatch):
    network, _, _, folder, wavs = trained
    lean = XCodec.from_directory(folder)
    idle = [unit is None for unit in lean.params["acoustic_encoder"]["blocks"][0]["units"]]
    assert all(idle) if network.linear_ends else not any(idle)
    assert lean.params["hubert"] is None
    monkeypatch.setattr(model, "without_idle", lambda params: params)
    whole = XCodec.from_directory(folder)
    wav = wavs[0][:16000]
    np.testing.assert_array_equal(lean.encode(wav), whole.encode(wav))
    np.testing.assert_array_equal(lean.decode(lean.encode(wav)), whole.decode(whole.encode(wav)))


def test_transformers_loads_the_stored_codec(trained):
    _, _, _, folder, wavs = trained
    theirs, codec = xcodec_oracle.load(folder), XCodec.from_directory(folder)
    for wav in wavs[:3]:
        codes = codec.encode(wav)
        xcodec_oracle.ties(theirs, wav, codes, xcodec_oracle.encode(theirs, wav))
        mine, other = codec.decode(codes), xcodec_oracle.decode(theirs, codes)
        np.testing.assert_allclose(mine, other, atol=1e-4 * max(1.0, np.abs(mine).max()))


def test_training_goes_on_from_the_stored_codec(trained):
    network, params, _, folder, _ = trained
    config, full = read_directory(folder)
    assert config == network.config
    jax.tree.map(np.testing.assert_array_equal, network.narrowed(full), jax.tree.map(np.asarray, params))


@pytest.mark.parametrize("size", [16, 64, 100, 128, 1024])
def test_every_bandwidth_pays_for_its_codebooks_here_and_in_transformers(size):
    given = bandwidths(12, size, 320)
    for number, bandwidth in enumerate(given, start=1):
        config = XCodecConfig(target_bandwidths=given[:number], codebook_size=size)
        assert config.num_quantizers == number
        theirs = TheirConfig(target_bandwidths=list(given[:number]), codebook_size=size)
        quantizer = XcodecResidualVectorQuantization(theirs)
        assert theirs.num_quantizers == quantizer.get_num_quantizers_for_bandwidth(bandwidth) == number


def test_without_a_semantic_branch_the_stored_one_contributes_nothing():
    network = NETWORKS["whole"]
    full = network.widened(network.narrowed(init_random(SMALL, 0)), jnp.zeros((3, 16, 16)))
    assert not full["fc"]["kernel"][15:].any()
    assert all(not leaf.any() for leaf in jax.tree.leaves(full["semantic_encoder"]))


def test_principal_components_pass_sound_from_the_first_step_on():
    network = Trainable(
        XCodecConfig(
            target_bandwidths=(0.2,),
            codebook_size=16,
            semantic=NO_SEMANTICS,
            acoustic=DacConfig(16, (20, 4, 2, 2), 127, 256, (2, 2, 4, 20)),
        ),
        linear_ends=True,
    )
    wavs = np.stack([wav for name, wav in sounds(1.0).items() if name in ("tone", "chord", "melody", "clicks")])

    passed = jax.jit(lambda params: network.waveform(params, network.vectors(params, jnp.asarray(wavs))))

    def error(params):
        made = passed(params)
        return float(np.sum((made - wavs) ** 2) / np.sum(wavs**2))

    assert error(init_principal(network, wavs, seed=0)) < 0.1
    assert error(network.narrowed(init_random(network.config, 0))) > 0.9
