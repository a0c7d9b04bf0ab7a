"""How far one sound is from another, and how a codec uses its codes. Plain numpy, float64; no JAX.

Waveforms are [N], or [N, 2] where a stereo field is measured; full scale is 1.
"""

import functools

import librosa
import numpy as np
from jaxtyping import Float, Int

from ualm_jax.audio.stft import stft_magnitude

_POWER_FLOOR = 1e-10  # -100 dB: what is softer counts as silence
_MEL_WINDOWS = (2048, 1024, 512, 256, 128, 64, 32)  # samples, of `mel_distance`
_MEL_BANDS = (320, 160, 80, 40, 20, 10, 5)
_MEL_FLOOR = 1e-5
_LEVEL_WINDOW, _LEVEL_BANDS = 2048, 24  # of `stereo_level_difference`
_SOUNDING = 1e-6  # power, -60 dB: a softer band has no place in the stereo field


def si_sdr(made: Float[np.ndarray, " N"], wanted: Float[np.ndarray, " N"]) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, "SDR - half-baked or well done?").

    Means are removed first. NaN where the wanted sound is silent, -inf where the made one is.
    """
    made, wanted = (wav.astype(np.float64) - wav.mean(dtype=np.float64) for wav in (made, wanted))
    energy = wanted @ wanted
    if energy == 0.0:
        return float("nan")
    target = (made @ wanted) / energy * wanted
    with np.errstate(divide="ignore"):
        return float(10 * np.log10((target @ target) / np.maximum(np.sum((made - target) ** 2), 1e-30)))


def log_spectral_distance(
    made: Float[np.ndarray, " N"],
    wanted: Float[np.ndarray, " N"],
    *,
    n_fft: int = 2048,
    band: tuple[float, float] = (0.0, 1.0),
) -> float:
    """Root mean square over bins, mean over frames, of the difference of log10 power spectra (Gray and Markel 1976).

    The unit is that of the bandwidth-extension literature: log10 of power, not dB. Periodic Hann, hop n_fft // 4,
    power floored at 1e-10 of a full-scale bin. band: shares of the spectrum, lowest and highest.
    """
    made, wanted = (_log_power(wav, n_fft) for wav in (made, wanted))
    first, stop = (round(share * (n_fft // 2 + 1)) for share in band)
    difference = (made - wanted)[first:stop]
    return float(np.mean(np.sqrt(np.mean(difference**2, axis=0))))


def mel_distance(made: Float[np.ndarray, " N"], wanted: Float[np.ndarray, " N"], sample_rate: int) -> float:
    """Mean absolute difference of log10 mel magnitudes at seven resolutions, summed (DAC's `MelSpectrogramLoss`)."""
    return sum(
        float(np.mean(np.abs(_log_mel(made, sample_rate, n, bands) - _log_mel(wanted, sample_rate, n, bands))))
        for n, bands in zip(_MEL_WINDOWS, _MEL_BANDS, strict=True)
    )


def stereo_level_difference(
    made: Float[np.ndarray, "N 2"], wanted: Float[np.ndarray, "N 2"], sample_rate: int
) -> float:
    """Mean absolute error in dB of the level difference between left and right, over the mel bands and frames where the
    wanted sound is above -60 dB; NaN where it nowhere is.

    Powers are those of bins (1 for a full-scale sine) summed under triangles of height 1; 1e-8 is added to each, so
    that silence beside sound counts no more than some tens of dB.
    """
    filters = librosa.filters.mel(sr=sample_rate, n_fft=_LEVEL_WINDOW, n_mels=_LEVEL_BANDS, norm=None)
    left, right, left_made, right_made = (
        filters @ 10 ** _log_power(wav[:, channel], _LEVEL_WINDOW) for wav in (wanted, made) for channel in (0, 1)
    )
    sounding = left + right > _SOUNDING
    if not sounding.any():
        return float("nan")
    want, found = (10 * np.log10((a + 1e-8) / (b + 1e-8)) for a, b in ((left, right), (left_made, right_made)))
    return float(np.mean(np.abs(found - want)[sounding]))


def codebook_use(codes: Int[np.ndarray, "T Q"], size: int) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """Of each codebook: the share of its codes that occur, and the perplexity, 2 to the entropy in bits."""
    counts = np.stack([np.bincount(column, minlength=size) for column in codes.T])
    share = counts / counts.sum(1, keepdims=True)
    entropy = -np.sum(share * np.log2(np.where(share > 0, share, 1.0)), axis=1)
    return (counts > 0).mean(1), 2.0**entropy


def _log_power(wav: np.ndarray, n_fft: int) -> np.ndarray:
    """log10 of power, 1 for a full-scale sine in its bin; [F, T]."""
    magnitude = stft_magnitude(wav.astype(np.float64), n_fft, n_fft // 4) / (n_fft / 4)  # half the window's sum
    return np.log10(np.maximum(magnitude**2, _POWER_FLOOR))


@functools.cache
def _mel_filters(sample_rate: int, n_fft: int, bands: int) -> np.ndarray:
    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=bands)


def _log_mel(wav: np.ndarray, sample_rate: int, n_fft: int, bands: int) -> np.ndarray:
    magnitude = stft_magnitude(wav.astype(np.float64), n_fft, n_fft // 4)
    return np.log10(np.maximum(_mel_filters(sample_rate, n_fft, bands) @ magnitude, _MEL_FLOOR))
