"""Losses, against formulas written down a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from helpers.sounds import sounds

from ualm_jax.codecs import losses

# Compiled whole, as in training: one by one, their operations are a hundred programs.
spectra, spectrogram = (jax.jit(each, static_argnums=1) for each in (losses.spectra, losses.spectrogram))
waveform, phase = jax.jit(losses.waveform), jax.jit(losses.phase, static_argnums=2)
spectral = jax.jit(losses.spectral, static_argnums=(2, 3))


@pytest.fixture(scope="module")
def pair():
    found = sounds(0.5)
    wanted = np.stack([found["melody"], found["clicks"], 0.05 * found["noise"]])
    return wanted + 0.02 * np.random.default_rng(0).standard_normal(wanted.shape).astype(np.float32), wanted


@pytest.mark.parametrize("window", [64, 256, 1024])
def test_spectrograms_are_scipys(pair, window):
    hann = scipy.signal.get_window("hann", window)
    frames = scipy.signal.stft(
        pair[1], window=hann, nperseg=window, noverlap=window - window // 4, boundary="zeros", padded=True
    )[2]
    theirs = np.abs(np.moveaxis(frames, 1, 2)) * hann.sum() / np.sqrt(np.sum(hann**2))
    mine = np.asarray(spectrogram(jnp.asarray(pair[1]), window))
    count = min(mine.shape[1], theirs.shape[1])
    assert count >= pair[1].shape[1] // (window // 4)
    np.testing.assert_allclose(mine[:, :count], theirs[:, :count], atol=2e-5)


def test_white_noise_has_its_rms_in_every_bin():
    noise = 0.1 * np.random.default_rng(0).standard_normal((4, 16000)).astype(np.float32)
    power = np.mean(np.asarray(spectrogram(jnp.asarray(noise), 256)) ** 2, axis=(0, 1))
    np.testing.assert_allclose(np.sqrt(power[2:-2]), 0.1, rtol=0.1)


def test_the_waveform_loss_counts_each_clip_by_its_own_level(pair):
    made, wanted = pair
    absolute, squared = waveform(*map(jnp.asarray, pair))
    error = np.abs(made - wanted).astype(np.float64)
    want = np.mean(error.sum(1) / (np.abs(wanted).sum(1) + 1e-3 * wanted.shape[1]))
    assert absolute == pytest.approx(want, rel=1e-4)
    want = np.mean((error**2).sum(1) / ((wanted.astype(np.float64) ** 2).sum(1) + 1e-6 * wanted.shape[1]))
    assert squared == pytest.approx(want, rel=1e-4)


def test_the_loss_of_phases_is_its_formula(pair):
    made, wanted = (np.asarray(spectra(jnp.asarray(wav), 256), np.complex128) for wav in pair)
    want = np.mean(np.abs(made - wanted).sum((1, 2)) / (np.abs(wanted).sum((1, 2)) + 1e-3 * wanted[0].size))
    assert phase(*map(jnp.asarray, pair), (256,)) == pytest.approx(want, rel=1e-4)


def test_phases_draw_towards_a_partial_that_is_missing_whatever_its_level():
    """Which distances of magnitudes do not, and squared errors only as far as it is loud."""
    seconds = np.arange(4096) / 16000
    low, high = (np.sin(2 * np.pi * hz * seconds + 1) for hz in (500, 2000))

    def pull(loss, level):
        wanted = jnp.asarray(low + level * high, jnp.float32)[None]
        gradient = jax.jit(jax.grad(loss))(jnp.asarray(low, jnp.float32)[None], wanted)
        return -float(np.asarray(gradient[0]) @ high)

    def phases(made, wanted):
        return phase(made, wanted, (1024,))

    def squared(made, wanted):
        return waveform(made, wanted)[1]

    def linear(made, wanted):
        return spectral(made, wanted, (1024,), 16000)[0]

    assert pull(phases, 0.01) == pytest.approx(pull(phases, 0.1), rel=0.3)
    assert pull(squared, 0.01) < 0.15 * pull(squared, 0.1)
    assert abs(pull(linear, 0.1)) < 0.2 * pull(phases, 0.1)


def test_the_spectral_loss_counts_sounding_and_silent_frames_apart(pair):
    made, wanted = pair
    linear, log, silent = spectral(*map(jnp.asarray, pair), (256,), 16000)
    a, b = (np.asarray(spectrogram(jnp.asarray(wav), 256), np.float64) for wav in pair)
    assert linear == pytest.approx(np.mean(np.abs(a - b).sum((1, 2)) / (b.sum((1, 2)) + 1e-3 * b[0].size)), rel=1e-4)
    weights = losses.bands(256, 16000)
    distance = np.zeros(a.shape[:2])
    for column in weights.T:
        inside = [np.log(np.sqrt(np.average(x**2, axis=2, weights=column)) + 1e-2) for x in (a, b)]
        distance += np.abs(inside[0] - inside[1]) / weights.shape[1]
    power = (b**2).mean(2)
    sounds_share = power / (power + 1e-6)
    want = [
        np.mean((share * distance).sum(1) / (share.sum(1) + 0.01 * share.shape[1]))
        for share in (sounds_share, 1 - sounds_share)
    ]
    assert (float(log), float(silent)) == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(("window", "count"), [(64, 8), (256, 24), (1024, 48)])
def test_bands_cover_all_bins_with_half_of_them_spread_like_mel(window, count):
    weights = losses.bands(window, 16000)
    assert weights.shape == (window // 2 + 1, count)
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-6)
    assert (weights.sum(1) > 0).all()
    widths = 1 / (weights**2).sum(0)  # in bins: narrow below, never more than twice the even width above
    assert widths[0] < widths[count // 2] < widths[-2] < 2 * 2 * len(weights) / count


def test_noise_costs_least_at_its_own_level():
    """However it falls out: a bin-by-bin distance would want it softer."""
    draws = jnp.asarray(0.05 * np.random.default_rng(0).standard_normal((2, 4, 8000)), jnp.float32)
    costs = [float(spectral(gain * draws[0], draws[1], (1024, 256, 64), 16000)[1]) for gain in (0.7, 1.0, 1.4)]
    assert costs[1] < min(costs[0], costs[2])


def test_equal_sounds_cost_nothing(pair):
    same = jnp.asarray(pair[1])
    costs = *waveform(same, same), *spectral(same, same, (64,), 16000)
    assert all(float(cost) < 1e-6 for cost in costs)


def test_silence_has_finite_losses_and_gradients():
    def cost(made, wanted):
        return sum(waveform(made, wanted)) + sum(spectral(made, wanted, (1024, 64), 16000))

    for wanted in (jnp.zeros((2, 4000)), jnp.ones((2, 4000))):
        value, grad = jax.jit(jax.value_and_grad(cost))(jnp.zeros((2, 4000)), wanted)
        assert np.isfinite(value) and np.isfinite(grad).all()
