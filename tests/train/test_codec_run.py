"""Training a codec: one command, continued bit for bit, the same on any mesh."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.config_files import ROOT
from helpers.waveform_runs import STEPS, steps_of, tiny_codec

from ualm_jax.cli.config_file import load_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import read_directory
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping, to_mapping
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.codec import CodecNetwork, train_codec
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.waveform import waveform_run


def trained(config, workdir, mesh):
    """The states and metrics of the steps that a run takes."""
    return steps_of(lambda: waveform_run(CodecNetwork(config), workdir, mesh), mesh)


@pytest.fixture(scope="module")
def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, trained(tiny_codec(), workdir, one_device)


def test_every_phase_trains_what_it_should(whole):
    states = [state for state, _ in whole[1]]
    metrics = [metrics for _, metrics in whole[1]]
    assert not np.any(states[1].rest.embed) and np.any(states[2].rest.embed)
    assert "perplexity" not in metrics[1] and "perplexity" in metrics[2]
    assert "discriminators" not in metrics[3] and "discriminators" in metrics[4]

    def same(a, b):
        return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    # The first step of an optimiser is one of learning rate zero.
    assert same(states[0].judges, states[3].judges) and not same(states[3].judges, states[5].judges)
    assert not same(states[2].rest, states[3].rest) and not same(states[0].params, states[1].params)


def test_a_decoder_can_be_trained_alone_without_touching_a_code(whole, tmp_path, one_device):
    """On what another run has left: the same codes of every sound, and another decoder."""
    before = whole[0] / "codec"
    values = to_mapping(tiny_codec(steps=3))
    values["train"]["init_from"] = str(before)
    values["quantizer"] |= load_config(str(ROOT / "configs" / "codec_small_decoder.py"), []).to_dict()["quantizer"]
    values["adversarial"]["begin"] = None
    values["loss"]["phase"] = 0.25
    values["eval"]["every"], values["train"]["save_interval"] = 2, 9  # the codec is there when the run first saves
    states = trained(from_mapping(CodecRunConfig, values), tmp_path, one_device)
    assert set(states[-1][0].params) == set(states[-1][0].average) == {"acoustic_decoder", "fc2"}
    assert all(metrics["phase"] > 0 for _, metrics in states)
    (_, old), (_, new) = read_directory(before), read_directory(tmp_path / "codec")
    for name in ("acoustic_encoder", "fc", "codebooks"):
        for one, other in zip(jax.tree.leaves(old[name]), jax.tree.leaves(new[name]), strict=True):
            np.testing.assert_array_equal(one, other)
    wav = 0.1 * np.sin(np.arange(3200) / 7).astype(np.float32)
    one, other = XCodec.from_directory(before), XCodec.from_directory(tmp_path / "codec")
    np.testing.assert_array_equal(codes := one.encode(wav), other.encode(wav))
    assert not np.array_equal(one.decode(codes), other.decode(codes))
    # The codec is stored again and again while the run goes on: no part of what a checkpoint must find unchanged.
    assert "codec" not in (tmp_path / "checkpoints" / "3" / "checksums" / "SHA256SUMS").read_text()


def test_fixed_codes_need_a_codec_to_be_of():
    values = to_mapping(tiny_codec())
    values["quantizer"]["fixed"] = True
    with pytest.raises(UserError, match="quantizer.fixed keeps the codes of a codec: name it, train.init_from"):
        from_mapping(CodecRunConfig, values)


def test_the_run_leaves_a_codec(whole):
    codec = XCodec.from_directory(whole[0] / "codec")
    assert codec.codebook_sizes == (8, 8)
    wav = 0.1 * np.sin(np.arange(3200) / 7).astype(np.float32)
    assert codec.decode(codec.encode(wav)).shape == (3200,)


def test_a_run_begins_with_the_codec_it_is_given(whole, tmp_path, one_device):
    folder = str(whole[0] / "codec")
    with pytest.raises(UserError, match="set quantizer.begin to 0"):
        tiny_codec(init_from=folder)
    config = tiny_codec()
    config = dataclasses.replace(
        config,
        quantizer=dataclasses.replace(config.quantizer, begin=0),
        adversarial=dataclasses.replace(config.adversarial, begin=None),
        train=dataclasses.replace(config.train, init_from=folder, steps=1),
    )
    with jax.set_mesh(one_device):
        run = waveform_run(CodecNetwork(config), tmp_path, one_device)
        state = jax.device_get(run.state)
        assert np.isfinite(run.step(run.state, next(run.batches)[0])[1]["loss"])
    full = read_directory(folder)[1]
    np.testing.assert_array_equal(state.rest.embed, full["codebooks"])
    np.testing.assert_array_equal(state.params["fc2"]["kernel"], full["fc2"]["kernel"])


@pytest.mark.slow  # the loop is the enhancer's, whose resumed run is compared in every suite
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path, one_device, stop):
    config = tiny_codec()
    trained(dataclasses.replace(config, train=dataclasses.replace(config.train, steps=stop)), tmp_path, one_device)
    after = trained(config, tmp_path, one_device)
    assert len(after) == STEPS - stop
    jax.tree.map(np.testing.assert_array_equal, after[-1][0], whole[1][-1][0])


@pytest.mark.slow
def test_eight_devices_train_what_one_trains(whole, tmp_path):
    mesh = MeshConfig(data=4, fsdp=2)
    config = dataclasses.replace(tiny_codec(), mesh=mesh)
    spread = trained(config, tmp_path, make_mesh(mesh, jax.devices()[:8]))
    for (_, mine), (_, theirs) in zip(whole[1], spread, strict=True):
        for name in ("loss", "grad_norm"):
            assert theirs[name] == pytest.approx(mine[name], rel=2e-3)


def test_what_may_not_change_is_held_to(whole):
    config = tiny_codec()
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, frames=16))
    with pytest.raises(UserError, match="frames"):
        train_codec(dataclasses.replace(other, mesh=MeshConfig(data=8)), whole[0])


def test_a_batch_that_can_not_be_split_is_refused(tmp_path):
    config = tiny_codec()
    odd = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=6))
    with pytest.raises(UserError, match="batch_size"):
        train_codec(odd, tmp_path)
