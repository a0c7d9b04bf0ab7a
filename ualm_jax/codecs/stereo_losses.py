"""What a stereo sound costs beside the sound it should be: differentiable, averaged over clips.

A full-scale sine has magnitude 1; windows are periodic Hann, a quarter of their length apart, zeros around the clip.
"""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from jaxtyping import Array, Float

from ualm_jax.codecs.losses import spectrogram

_FLOOR = 1e-5  # -100 dB: what is softer is silence
_SOUNDING = 1e-3  # -60 dB: softer sounds have no place in the stereo field, and converge to nothing
_LEVEL_WINDOW, _LEVEL_BANDS = 2048, 24
_MEL_FLOOR = 1e-5  # of DAC's `MelSpectrogramLoss`, whose magnitudes are not divided by the window's sum


def sum_and_difference(
    made: Float[Array, "B N 2"], wanted: Float[Array, "B N 2"], windows: tuple[int, ...]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Multi-resolution STFT distances (Yamamoto et al. 2020) of mid and side, in the mean, as in auraloss'
    SumAndDifferenceSTFTLoss (Steinmetz et al. 2020): (spectral convergence, logarithmic).

    Convergence: Frobenius norm of the difference divided by that of the wanted sound, clip by clip; a clip softer than
    -60 dB everywhere counts less. Logarithmic: mean absolute difference of natural logarithms of magnitudes + -100 dB.
    """
    convergence = log = 0.0
    for window in windows:
        a, b = (_magnitudes(_mid_side(wav), window) for wav in (made, wanted))
        energy = jnp.sum(b**2, (1, 2)) + _SOUNDING**2 * b.shape[1]
        convergence += jnp.mean(jnp.sqrt((jnp.sum((a - b) ** 2, (1, 2)) + 1e-12) / energy))
        log += jnp.mean(jnp.abs(jnp.log(a + _FLOOR) - jnp.log(b + _FLOOR)))
    return convergence / len(windows), log / len(windows)


def log_mel(
    made: Float[Array, "B N 2"],
    wanted: Float[Array, "B N 2"],
    sample_rate: int,
    scales: tuple[tuple[int, int], ...],
) -> Float[Array, ""]:
    """Mean absolute difference of log10 mel magnitudes of both channels, summed over scales of (window, bands), as
    DAC's `MelSpectrogramLoss` (Kumar et al. 2023)."""
    total = 0.0
    for window, bands in scales:
        filters = _mel(sample_rate, window, bands).T * np.float32(np.sqrt(0.375 * window))
        a, b = (spectrogram(_channels(wav), window) @ filters for wav in (made, wanted))
        total += jnp.mean(jnp.abs(jnp.log10(jnp.maximum(a, _MEL_FLOOR)) - jnp.log10(jnp.maximum(b, _MEL_FLOOR))))
    return total


def level_difference(
    made: Float[Array, "B N 2"], wanted: Float[Array, "B N 2"], sample_rate: int, axes: tuple[str, ...] = ()
) -> Float[Array, ""]:
    """Mean absolute error of the level difference between left and right, in dB, over the mel bands and frames where
    the wanted sound is above -60 dB (that is: the inter-aural level difference of loudspeaker signals).

    axes: of the mesh that rows are split over, inside `jax.shard_map`; then the mean over devices is the mean over all
    rows, of which some devices may have more that sounds.
    """
    made, wanted = (_band_powers(wav, sample_rate) for wav in (made, wanted))
    sounding = jnp.sum(wanted, 0) > _SOUNDING**2
    error = jnp.abs(_difference_db(made) - _difference_db(wanted))
    count, devices = jnp.sum(sounding), 1
    if axes:
        count, devices = jax.lax.psum(count, axes), jax.lax.axis_size(axes)
    return devices * jnp.sum(jnp.where(sounding, error, 0.0)) / jnp.maximum(count, 1)


def divergence(mean: Float[Array, "B T D"], deviation: Float[Array, "B T D"]) -> Float[Array, ""]:
    """Twice the Kullback-Leibler divergence, in nats, of normal distributions from the standard one: sum over a latent,
    mean over latents (stable-audio-tools' `vae_sample`)."""
    return jnp.mean(jnp.sum(mean**2 + deviation**2 - 2 * jnp.log(deviation) - 1, -1))


def _band_powers(wav: Float[Array, "B N 2"], sample_rate: int) -> Float[Array, "2 B T F"]:
    bands = _mel(sample_rate, _LEVEL_WINDOW, _LEVEL_BANDS, None).T
    powers = _magnitudes(_channels(wav), _LEVEL_WINDOW) ** 2 @ bands
    return powers.reshape(2, -1, *powers.shape[1:])


def _difference_db(powers: Float[Array, "2 B T F"]) -> Float[Array, "B T F"]:
    levels = 10 * jnp.log10(powers + 0.01 * _SOUNDING**2)
    return levels[0] - levels[1]


def _channels(wav: Float[Array, "B N 2"]) -> Float[Array, "C N"]:
    """Left and right as clips of their own."""
    return jnp.concatenate([wav[..., 0], wav[..., 1]])


def _mid_side(wav: Float[Array, "B N 2"]) -> Float[Array, "C N"]:
    left, right = wav[..., 0], wav[..., 1]
    return jnp.concatenate([(left + right) / 2, (left - right) / 2])


def _magnitudes(wav: Float[Array, "B N"], window: int) -> Float[Array, "B T F"]:
    return spectrogram(wav, window) * np.float32(4 * np.sqrt(0.375 / window))


@functools.cache
def _mel(sample_rate: int, window: int, bands: int, norm: str | None = "slaney") -> Float[np.ndarray, "M F"]:
    return librosa.filters.mel(sr=sample_rate, n_fft=window, n_mels=bands, norm=norm)
