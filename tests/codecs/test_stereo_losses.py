"""Stereo losses, against formulas written down a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import torch
from helpers.sounds import sounds
from jax.sharding import PartitionSpec

from ualm_jax.codecs import stereo_losses
from ualm_jax.evaluate.audio_metrics import mel_distance, stereo_level_difference
from ualm_jax.parallel.mesh import MeshConfig, make_mesh

RATE = 48000
# Compiled whole, as in training: one by one, their operations are a hundred programs.
sum_and_difference = jax.jit(stereo_losses.sum_and_difference, static_argnums=2)
log_mel = jax.jit(stereo_losses.log_mel, static_argnums=(2, 3))
level_difference = jax.jit(stereo_losses.level_difference, static_argnums=2)


@pytest.fixture(scope="module")
def pair():
    """Two clips at 48 kHz, of another place left and right, and what was made of them."""
    found = sounds(0.5)
    rng = np.random.default_rng(0)
    wanted = np.stack([found["melody"], 0.3 * found["noise"]])[:, :4096, None] * [[[1.0, 0.3]], [[0.2, 0.8]]]
    made = wanted * [[[0.7, 0.6]]] + 0.01 * rng.standard_normal(wanted.shape)
    return made.astype(np.float32), wanted.astype(np.float32)


def magnitudes(wav, window):
    """[B, F, T], 1 for a full-scale sine."""
    hann = scipy.signal.get_window("hann", window)
    spectrum = scipy.signal.stft(
        wav.astype(np.float64), window=hann, nperseg=window, noverlap=window * 3 // 4, boundary="zeros", padded=True
    )[2]
    return 2 * np.abs(spectrum)


@pytest.mark.parametrize("window", [128, 1024])
def test_sum_and_difference_are_measured_apart(pair, window):
    convergence, log = sum_and_difference(*map(jnp.asarray, pair), (window,))
    apart = []
    for sign in (1, -1):
        a, b = (magnitudes((wav[..., 0] + sign * wav[..., 1]) / 2, window) for wav in pair)
        error = np.sqrt(((a - b) ** 2).sum((1, 2)) / ((b**2).sum((1, 2)) + 1e-6 * b.shape[2]))
        apart.append((error.mean(), np.abs(np.log(a + 1e-5) - np.log(b + 1e-5)).mean()))
    want = np.mean(apart, axis=0)
    assert convergence == pytest.approx(want[0], rel=1e-3)
    assert log == pytest.approx(want[1], rel=1e-3)


def test_the_log_mel_distance_is_that_of_the_metric(pair):
    windows, bands = (2048, 1024, 512, 256, 128, 64, 32), (320, 160, 80, 40, 20, 10, 5)
    found = log_mel(*map(jnp.asarray, pair), RATE, tuple(zip(windows, bands, strict=True)))
    each = [mel_distance(a[:, c], b[:, c], RATE) for a, b in zip(*pair, strict=True) for c in (0, 1)]
    assert found == pytest.approx(np.mean(each), rel=2e-3)


def test_the_level_difference_is_that_of_the_metric(pair):
    for row in (0, 1):
        a, b = (wav[row] for wav in pair)
        found = level_difference(jnp.asarray(a[None]), jnp.asarray(b[None]), RATE)
        assert found == pytest.approx(stereo_level_difference(a, b, RATE), rel=1e-2)


def test_the_level_difference_of_a_batch_is_the_same_on_two_devices(pair):
    """Of which the second has less that sounds. Losses and gradients are averaged over devices."""
    made, wanted = pair[0], pair[1] * np.float32([[[1.0]], [[0.02]]])
    want = jax.value_and_grad(level_difference)(jnp.asarray(made), jnp.asarray(wanted), RATE)
    rows = PartitionSpec("data")

    def local(made, wanted):
        def loss(made):
            return stereo_losses.level_difference(made, wanted, RATE, ("data",))

        value, grads = jax.value_and_grad(loss)(made)
        return jax.lax.pmean(value, "data"), grads / 2

    with jax.set_mesh(make_mesh(MeshConfig(data=2), jax.devices()[:2])):
        spread = jax.jit(
            jax.shard_map(local, in_specs=(rows, rows), out_specs=(PartitionSpec(), rows), check_vma=False)
        )
        found = jax.device_get(spread(*(jax.device_put(wav, rows) for wav in (made, wanted))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, want)


def test_the_level_difference_is_in_decibels():
    tone = 0.1 * np.sin(np.arange(24000) * 2 * np.pi * 1000 / RATE)
    wanted = np.stack([tone, tone / 10], axis=1)  # 20 dB
    assert stereo_level_difference(wanted, wanted, RATE) == 0
    assert stereo_level_difference(np.stack([tone, tone], axis=1), wanted, RATE) == pytest.approx(20, abs=1.0)
    assert np.isnan(stereo_level_difference(wanted, 0 * wanted, RATE))


def test_the_divergence_is_torchs():
    rng = np.random.default_rng(0)
    mean, deviation = rng.standard_normal((2, 5, 3)), rng.uniform(0.1, 2, (2, 5, 3))
    normal = torch.distributions.Normal(torch.tensor(mean), torch.tensor(deviation))
    want = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1).mean()
    assert stereo_losses.divergence(jnp.asarray(mean), jnp.asarray(deviation)) == pytest.approx(
        2 * want.item(), rel=1e-5
    )
