"""What a decoded sound costs: distances between waveforms, differentiable, averaged over clips."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ualm_jax.errors import UserError

SILENCE = 1e-3  # RMS of full scale, -60 dB: differences below it do not count
FLOOR = 1e-2  # of magnitudes, -40 dB: logarithms below it are all alike
FEWEST = 0.01  # share of a clip's frames: where less sounds (or is silent), it counts less


def check_windows(windows: Sequence[int], name: str, least: int) -> None:
    """Raises UserError where `spectrogram` can not take one of these windows, or one is shorter than `least`."""
    if not windows or min(windows) < least or any(window % 4 for window in windows):
        raise UserError(f"{name} must be one or more multiples of 4 of at least {least} samples, got {tuple(windows)}.")


def spectrogram(wav: Float[Array, "B N"], window: int) -> Float[Array, "B T F"]:
    """Magnitudes of `spectra`."""
    return _magnitude(spectra(wav, window))


def spectra(wav: Float[Array, "B N"], window: int) -> Complex[Array, "B T F"]:
    """Spectra of windows of `window` samples (periodic Hann), a quarter of that apart, zeros around the clip.

    window: a multiple of 4.

    Divided by the root of the window's energy: white noise of RMS r has magnitudes about r in every bin.
    """
    hop = window // 4
    blocks = -(-wav.shape[1] // hop)
    padded = jnp.pad(wav, ((0, 0), (window // 2, window // 2 + blocks * hop - wav.shape[1]))).reshape(len(wav), -1, hop)
    frames = jnp.concatenate([padded[:, i : i + blocks + 1] for i in range(4)], axis=-1)
    hann = np.hanning(window + 1)[:-1].astype(np.float32)
    return jnp.fft.rfft(frames * (hann / np.sqrt(np.sum(hann**2))))


def _magnitude(spectrum: Complex[Array, "B T F"]) -> Float[Array, "B T F"]:
    return jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12)


def phase(made: Float[Array, "B N"], wanted: Float[Array, "B N"], windows: tuple[int, ...]) -> Float[Array, ""]:
    """The linear distance of `spectral`, of complex spectra: magnitudes of differences by the sum of magnitudes.

    Of a partial that is not made at all a distance of magnitudes does not say at which phase it should begin, and a
    squared error hardly counts a soft one. This one draws towards it as strongly whatever its level.
    """
    distance = 0.0
    for window in windows:
        a, b = spectra(made, window), spectra(wanted, window)
        size = jnp.sum(_magnitude(b), (1, 2)) + SILENCE * b[0].size
        distance += jnp.mean(jnp.sum(_magnitude(a - b), (1, 2)) / size)
    return distance / len(windows)


def spectral(
    made: Float[Array, "B N"], wanted: Float[Array, "B N"], windows: tuple[int, ...], sample_rate: int
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Multi-resolution STFT distances (Yamamoto et al. 2020, "Parallel WaveGAN"): (linear, logarithmic, silent).

    Linear: sum of absolute differences divided by the sum of magnitudes, clip by clip, so that a soft clip counts like
    a loud one. Logarithmic: mean absolute difference of logarithms of the RMS of bands, floored at FLOOR, of frames
    where the wanted sound is, so that a click between pauses counts like a long tone. Silent: the same of the other
    frames.

    Bands and not bins: noise can not be made again bin by bin, and an error that nothing reduces drowns the rest. The
    floor: without it, what counts most is how silent the bins beside a pure tone are.
    """
    linear = log = silent = 0.0
    for window in windows:
        a, b = spectrogram(made, window), spectrogram(wanted, window)
        linear += jnp.mean(jnp.sum(jnp.abs(a - b), (1, 2)) / (jnp.sum(b, (1, 2)) + SILENCE * b[0].size))
        weights = bands(window, sample_rate)
        in_bands = (jnp.log(jnp.sqrt(magnitudes**2 @ weights + 1e-12) + FLOOR) for magnitudes in (a, b))
        distance = jnp.mean(jnp.abs(jnp.subtract(*in_bands)), 2)
        power = jnp.mean(b**2, 2)
        sounding = power / (power + SILENCE**2)
        frames = b.shape[1]
        log += jnp.mean(jnp.sum(sounding * distance, 1) / (jnp.sum(sounding, 1) + FEWEST * frames))
        silent += jnp.mean(jnp.sum((1 - sounding) * distance, 1) / (jnp.sum(1 - sounding, 1) + FEWEST * frames))
    return linear / len(windows), log / len(windows), silent / len(windows)


def bands(window: int, sample_rate: int) -> Float[np.ndarray, "F M"]:
    """Weights of the bins of a spectrum in overlapping triangular bands, 1 in all for each band.

    They lie half evenly and half as densely as the mel scale does, so that neither a cymbal nor a bass drum is too
    small to matter. M: 1.5 sqrt(window), an eighth of the window at most.
    """
    mel = 1.0 / (700.0 + np.arange(window // 2 + 1) * sample_rate / window)
    density = 0.5 * mel / mel.sum() + 0.5 / len(mel)
    count = min(round(1.5 * window**0.5), window // 8)
    place = np.cumsum(density)[:, None] * count - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(place - np.arange(count)))
    return (weights / weights.sum(0)).astype(np.float32)


def waveform(made: Float[Array, "B N"], wanted: Float[Array, "B N"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(absolute, squared) error, divided by the clip's own magnitude and energy."""
    error, samples = made - wanted, wanted.shape[1]
    absolute = jnp.sum(jnp.abs(error), 1) / (jnp.sum(jnp.abs(wanted), 1) + SILENCE * samples)
    squared = jnp.sum(error**2, 1) / (jnp.sum(wanted**2, 1) + SILENCE**2 * samples)
    return jnp.mean(absolute), jnp.mean(squared)
