"""Training an enhancer: one command, continued bit for bit, the same on any mesh; what is wrong said in a sentence."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import soundfile
from helpers.enhancers import enhance_config
from helpers.runs import checkpoint_steps, stopped_at
from helpers.waveform_runs import steps_of

from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.errors import UserError
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.enhance import EnhancerNetwork, train_enhancer
from ualm_jax.train.enhance_config import EnhanceRunConfig
from ualm_jax.train.loop import fit
from ualm_jax.train.waveform import waveform_run

STEPS = 4


def tiny(**groups) -> EnhanceRunConfig:
    """Two steps without discriminators, two with."""
    changes = {
        "enhancer": {
            "frame": 16,
            "width": 8,
            "mlp_dim": 8,
            "encoder_blocks": 1,
            "decoder_blocks": 1,
            "kernel_size": 3,
            "latent_width": 4,
            "noise_bands": 5,
        },
        "data": {"soundscript": 4, "workers": 1, "batch_size": 8, "frames": 24, "threads": 1},
        "pairs": {"equaliser_share": 0.5, "noise_share": 0.5},
        "loss": {"windows": (256,), "mel": 0.1, "mel_windows": (256,), "mel_bands": (10,)},
        "adversarial": {"begin": 2, "discriminators": {"periods": (2,), "windows": (64,), "width": 2}},
        "train": {"steps": STEPS, "log_every": 1, "save_interval": 1, "max_to_keep": STEPS},
        "eval": {"every": STEPS, "sounds": 1, "seconds": 0.1},
    }
    for group, fields in groups.items():
        changes[group] = changes.get(group, {}) | fields
    return enhance_config("enhance_small", changes)


def trained(config, workdir, mesh):
    """The states and metrics of the steps that a run takes."""
    return steps_of(lambda: waveform_run(EnhancerNetwork(config), workdir, mesh), mesh)


@pytest.fixture(scope="module")
def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, trained(tiny(), workdir, one_device)


def test_both_phases_train_what_they_should(whole):
    states, metrics = zip(*whole[1], strict=True)
    parts = {"convergence", "log", "mel", "level", "divergence"}
    assert parts <= metrics[1].keys() and "discriminators" not in metrics[1] and "discriminators" in metrics[2]

    def same(a, b):
        return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    # The first step of an optimiser is one of learning rate zero.
    assert same(states[0].judges, states[1].judges) and not same(states[1].judges, states[3].judges)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), states[0].params, states[3].params)
    assert all(jax.tree.leaves(moved))


def test_the_run_leaves_an_enhancer_and_its_card(whole):
    enhancer = Enhancer.from_directory(whole[0] / "enhancer")
    assert enhancer.enhance(np.ones(100, np.float32)).shape == (300, 2)
    np.testing.assert_array_equal(
        enhancer.params["decoder"]["phase"]["kernel"], whole[1][-1][0].average["decoder"]["phase"]["kernel"]
    )
    assert "4 SoundScript scenes in stereo" in (whole[0] / "enhancer" / "README.md").read_text()


def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path, one_device):
    stopped_at(1, whole[0], tmp_path / "run")
    after = trained(tiny(), tmp_path / "run", one_device)
    assert len(after) == STEPS - 1
    jax.tree.map(np.testing.assert_array_equal, after[-1][0], whole[1][-1][0])
    enhancer, same = tmp_path / "run" / "enhancer", (whole[0] / "enhancer" / "model.safetensors").read_bytes()
    shutil.rmtree(enhancer)  # as if it had been killed when the last checkpoint was whole, and the enhancer not
    assert train_enhancer(tiny(mesh={"data": 8}, eval={"sounds": 0}), tmp_path / "run") == STEPS
    assert (enhancer / "model.safetensors").read_bytes() == same


@pytest.mark.slow
def test_eight_devices_train_what_one_trains(whole, tmp_path):
    mesh = MeshConfig(data=4, fsdp=2)
    config = dataclasses.replace(tiny(), mesh=mesh)
    spread = trained(config, tmp_path, make_mesh(mesh, jax.devices()[:8]))
    for (_, mine), (_, theirs) in zip(whole[1], spread, strict=True):
        for name in ("loss", "grad_norm"):
            assert theirs[name] == pytest.approx(mine[name], rel=2e-3)


def test_nan_in_a_discriminator_stops_the_run_and_is_not_saved(whole, tmp_path, one_device):
    stopped_at(2, whole[0], tmp_path / "run")
    with jax.set_mesh(one_device):
        run = waveform_run(EnhancerNetwork(tiny()), tmp_path / "run", one_device)
        step = run.step

        def broken(state, batch):
            return step(state._replace(judges=jax.tree.map(lambda leaf: leaf * np.nan, state.judges)), batch)

        with pytest.raises(UserError, match="Step 3: .*discriminators is nan.*the batch held the records"):
            fit(dataclasses.replace(run, step=broken))
    assert checkpoint_steps(tmp_path / "run") == [1, 2]


def test_weights_of_another_config_are_refused(whole, tmp_path, one_device):
    config = tiny(train={"init_from": str(whole[0] / "enhancer")}, enhancer={"latent_width": 5})
    with jax.set_mesh(one_device), pytest.raises(UserError, match="expected an enhancer of the shape"):
        waveform_run(EnhancerNetwork(config), tmp_path, one_device)
    with pytest.raises(UserError, match="was made with config.enhancer.latent_width"):
        train_enhancer(tiny(enhancer={"latent_width": 5}, mesh={"data": 8}), whole[0])
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).uniform(-1, 1, (9600, 2)), 48000)
    with pytest.raises(UserError, match="config.data.sounds.kind = 'generated', but this run has 'folder'"):
        train_enhancer(tiny(data={"folder": str(tmp_path)}, mesh={"data": 8}), whole[0])


def test_what_passes_the_codec_is_as_long_as_it_was_and_in_its_place(monkeypatch):
    class Inverting:
        """A codec that takes whole frames alone, and leaves of them their opposite."""

        hop, round_trip = 320, XCodec.round_trip

        def encode_batch(self, wavs):
            assert all(len(wav) % self.hop == 0 for wav in wavs)
            return [-wav for wav in wavs]

        def decode_batch(self, codes):
            return codes

    monkeypatch.setattr(XCodec, "from_directory", lambda path: Inverting())
    rows, crops = slice(None), np.random.default_rng(0).standard_normal((8, 2304, 2)).astype(np.float32)
    clean, passed = (
        EnhancerNetwork(tiny(pairs={"codec": codec, "codec_share": 1.0})).finish(rows, 0)(0, crops)["low"]
        for codec in (None, "folder")
    )
    np.testing.assert_array_equal(passed, -clean)


def test_sounds_that_can_not_be_learnt_from_are_left_out_and_counted(tmp_path, caplog, one_device):
    folder = tmp_path / "sounds"
    folder.mkdir()
    with jax.set_mesh(one_device):
        with pytest.raises(UserError, match="expected sounds .* found no file of these"):
            waveform_run(EnhancerNetwork(tiny(data={"folder": str(folder)})), tmp_path / "run", one_device)
        noise = np.random.default_rng(0).uniform(-1, 1, (20000, 2))
        soundfile.write(folder / "silent.wav", 0 * noise, 48000)
        with pytest.raises(UserError, match="sounds: expected sounds to learn from, found silence in all of 256 crops"):
            waveform_run(EnhancerNetwork(tiny(data={"folder": str(folder)})), tmp_path / "run", one_device)
        soundfile.write(folder / "good.wav", noise, 48000)
        soundfile.write(folder / "high.wav", noise, 192000)
        soundfile.write(folder / "clipped.wav", np.sign(noise), 48000)
        soundfile.write(folder / "mono.wav", noise[:, 0], 48000)
        soundfile.write(folder / "short.wav", noise[:100], 48000)
        soundfile.write(folder / "low.wav", noise, 8000)
        (folder / "broken.wav").write_bytes(b"RIFF")
        run = waveform_run(EnhancerNetwork(tiny(data={"folder": str(folder)})), tmp_path / "run", one_device)
        batch = next(run.batches)[0]
        run.batches.close()
    said = caplog.text
    for reason in ("1 mono", "1 too short", "1 below 43200 Hz", "1 unreadable"):
        assert reason in said
    assert "4 sounds, left out" in said
    assert all(np.isfinite(leaf).all() for leaf in batch.values())
