"""The enhancer: filters that move nothing, pieces that are the whole, what comes from the input, and its files."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import soxr
from helpers.enhancers import TINY, tiny_enhancer
from safetensors.numpy import load_file, save_file

from ualm_jax.audio.io import loudness
from ualm_jax.codecs.enhance import filters, network
from ualm_jax.codecs.enhance.config import EnhancerConfig
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.codecs.enhance.probe import probe
from ualm_jax.codecs.enhance.weights import read_directory, save_directory
from ualm_jax.errors import UserError


@pytest.fixture(scope="module")
def wav():
    """0.3 s: an odd number of samples, tones and noise."""
    n = np.arange(4801)
    tones = np.sin(2 * np.pi * 440 * n / 16000) + np.sin(2 * np.pi * 3000 * n / 16000)
    return (0.1 * tones + 0.02 * np.random.default_rng(0).standard_normal(len(n))).astype(np.float32)


def test_what_passes_a_filter_is_not_moved_and_what_is_stopped_is_gone():
    n = np.arange(9600)
    taps = filters.lowpass(7000)
    low, high = (np.sin(2 * np.pi * hz * n / 48000).astype(np.float32) for hz in (6900, 8050))
    inner = slice(400, -400)
    np.testing.assert_allclose(filters.filtered(jnp.asarray(low), taps)[inner], low[inner], atol=1e-4)
    assert np.abs(filters.filtered(jnp.asarray(high), taps)[inner]).max() < 1e-4
    there = filters.downsampled(low, 7000)
    np.testing.assert_allclose(there[140:-140], low[::3][140:-140], atol=1e-4)
    back = np.asarray(filters.upsampled(jnp.asarray(there), taps))
    np.testing.assert_allclose(back[800:-800], low[800:-800], atol=3e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_spectra_become_the_sound_they_are_of(causal):
    config = dataclasses.replace(TINY, causal=causal)
    wav = np.random.default_rng(0).standard_normal((2, 48 * 20)).astype(np.float32)
    spectra = network._spectra(jnp.asarray(wav), 48, causal)
    sound = np.asarray(network._sound(jnp.stack([spectra, 2 * spectra], axis=2), config))
    inner = slice(3 * 48, -3 * 48)
    np.testing.assert_allclose(sound[:, inner, 0], wav[:, inner], atol=1e-5)
    np.testing.assert_allclose(sound[:, inner, 1], 2 * wav[:, inner], atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_pieces_are_the_whole(wav, causal):
    enhancer = tiny_enhancer(causal=causal)
    whole, pieces = enhancer.enhance(wav), enhancer.enhance(wav, piece=16)
    assert whole.shape == (3 * len(wav), 2) and whole.dtype == np.float32
    np.testing.assert_allclose(pieces, whole, atol=1e-5 * np.abs(whole).max())


def test_only_the_causal_enhancer_waits_for_nothing(wav):
    """What comes after a moment, and after the latency, changes nothing before it."""
    at, latency = 2400, 5 * TINY.frame
    changed = np.concatenate([wav[:at], -wav[at:]])
    for causal in (True, False):
        enhancer = tiny_enhancer(causal=causal, kernel_size=7)
        difference = np.abs(enhancer.enhance(wav) - enhancer.enhance(changed))
        assert (difference[: 3 * (at - latency)].max() < 1e-5) == causal


def test_below_the_crossover_the_mid_signal_is_the_input(wav):
    made = tiny_enhancer().enhance(wav)
    mid, side = made.mean(1), (made[:, 0] - made[:, 1]) / 2
    below = scipy.signal.firwin(801, 6500, fs=48000, window=("kaiser", 10.0))  # stops at 6.9 kHz

    def low(wav):
        return scipy.signal.oaconvolve(wav, below, mode="valid")

    kept, heard = low(mid), low(soxr.resample(wav, 16000, 48000))
    assert np.sqrt(np.mean((kept - heard) ** 2)) < 1e-3 * np.sqrt(np.mean(heard**2))
    assert np.std(side) > 0.1 * np.std(mid)
    assert np.std(mid[400:-400] - kept) > 0.1 * np.std(mid)
    everything = low(tiny_enhancer(crossover_hz=None).enhance(wav).mean(1))
    assert np.sqrt(np.mean((everything - heard) ** 2)) > 0.1 * np.sqrt(np.mean(heard**2))


@pytest.mark.parametrize("changes", [{}, {"crossover_hz": None}, {"crossover_hz": None, "mid_side": False}])
def test_the_loudness_of_the_input_is_kept(wav, changes):
    made = tiny_enhancer(**changes).enhance(wav)
    low = filters.downsampled(made.mean(1), 7000)
    # The input's last kilohertz is not compared; little of its energy lies there.
    assert loudness(low, 16000) == pytest.approx(loudness(wav, 16000), abs=0.3)


def test_left_and_right_are_what_is_made_without_mid_and_side(wav):
    config = dataclasses.replace(TINY, crossover_hz=None)
    params = jax.device_get(tiny_enhancer(crossover_hz=None).params)
    params["decoder"]["share"] = jax.tree.map(np.zeros_like, params["decoder"]["share"])
    mid_side, left_right = (
        Enhancer(dataclasses.replace(config, mid_side=flag), params).enhance(wav) for flag in (True, False)
    )
    mixed = np.stack([left_right[:, 0] + left_right[:, 1], left_right[:, 0] - left_right[:, 1]], axis=1)
    scale = np.sum(mixed * mid_side) / np.sum(mid_side**2)  # each was given the loudness of the input
    np.testing.assert_allclose(mixed / scale, mid_side, atol=1e-4)


def test_silence_stays_finite_and_what_is_no_sound_is_refused():
    enhancer = tiny_enhancer()
    assert np.isfinite(enhancer.enhance(np.zeros(4801, np.float32))).all()
    assert enhancer.enhance(np.ones(1, np.float32)).shape == (3, 2)
    for bad in (np.zeros(0), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match="expected finite mono samples"):
            enhancer.enhance(bad)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frame": 15}, "frame must be even"),
        ({"kernel_size": 4}, "kernel_size odd"),
        ({"crossover_hz": 7900}, "crossover_hz must lie between 1 and 7600 or be None, got 7900"),
        ({"width": 0}, "enhancer.width"),
    ],
)
def test_shapes_that_can_not_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        EnhancerConfig(**changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enhancer")
    enhancer = tiny_enhancer()
    save_directory(jax.device_get(enhancer.params), enhancer.config, folder, {"Learnt from": "nothing"})
    return folder


def test_what_is_written_is_read(folder, wav):
    config, params = read_directory(folder)
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(tiny_enhancer().params))
    assert "- Learnt from: nothing" in (folder / "README.md").read_text()


def remade(folder, target, change):
    """A copy of the folder whose tensors and configuration were changed."""
    target.mkdir()
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, target / "model.safetensors")
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_a_config_that_an_older_version_wrote_opens(folder, tmp_path):
    def rename(tensors, config):
        config["enhancer"]["mlp_width"] = config["enhancer"].pop("mlp_dim")

    assert read_directory(remade(folder, tmp_path / "old", rename))[0] == TINY


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, c: t.pop("encoder.out.bias"), "expected a tensor encoder.out.bias"),
        (lambda t, c: t.update(more=np.zeros(1, np.float32)), "found also more"),
        (lambda t, c: c["enhancer"].update(width=16), "these weights are of another enhancer"),
        (lambda t, c: t["encoder.out.bias"].fill(np.nan), "finite numbers in encoder.out.bias"),
        (lambda t, c: t.update({"encoder.out.bias": np.zeros(8)}), "found float64"),
        (lambda t, c: c.update(format="xcodec"), "found another kind of model"),
        (lambda t, c: c["enhancer"].update(wide=16), "wide is not a field"),
    ],
)
def test_files_that_do_not_fit_say_so_in_a_sentence(folder, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_directory(remade(folder, tmp_path / "bad", change))


def test_broken_and_missing_files_say_so_in_a_sentence(folder, tmp_path):
    with pytest.raises(UserError, match="expected the config.json of an enhancer, found no such file"):
        read_directory(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UserError, match="expected the weights of an enhancer, found no such file"):
        read_directory(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="found a file that cannot be read"):
        read_directory(tmp_path)


def test_a_probe_matches_by_name_and_by_shapes_that_are_alone(folder, tmp_path):
    whole = probe(folder / "model.safetensors", TINY)
    assert not (whole.ambiguous or whole.missing or whole.unknown) and all(a == b for a, b in whole.fits.items())

    def foreign(tensors, config):
        tensors["enc.first"] = tensors.pop("encoder.in.kernel")  # alone of its shape on both sides
        tensors["a"], tensors["b"] = tensors.pop("encoder.last_norm.bias"), tensors.pop("encoder.last_norm.scale")
        tensors["other"] = np.zeros((3, 5), np.float32)
        tensors.pop("encoder.out.kernel")

    file = remade(folder, tmp_path / "foreign", foreign) / "model.safetensors"
    probed = probe(file, TINY)
    assert probed.fits["encoder.in.kernel"] == "enc.first"
    ours, theirs = probed.ambiguous[(8,)]
    assert set(ours) == {"encoder.last_norm.bias", "encoder.last_norm.scale"} and set(theirs) == {"a", "b"}
    assert probed.missing == ["encoder.out.kernel"] and probed.unknown == ["other"]
    assert probed.found["other"] == ("F32", (3, 5))
    with pytest.raises(UserError, match="expected a safetensors file"):
        probe(folder / "config.json", TINY)
