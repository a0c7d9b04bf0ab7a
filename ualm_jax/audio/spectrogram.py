"""Log-mel spectrograms to look at: as an array, as a labelled PNG, as pixels for TensorBoard."""

import io
import os

import librosa
import numpy as np
from jaxtyping import Float, Float32, UInt8

from ualm_jax.audio.stft import stft_magnitude

_N_FFT = 1024
_HOP = 256
_MELS = 128
_RANGE_DB = 80.0  # what a picture shows below its loudest point


def log_mel_spectrogram(wav: Float[np.ndarray, "N"], sample_rate: int) -> Float32[np.ndarray, "128 T"]:
    """Mel power in dB, lowest band first, one column per 256 samples. A full-scale sine is far above 0 dB."""
    filters = librosa.filters.mel(sr=sample_rate, n_fft=_N_FFT, n_mels=_MELS)
    power = filters @ stft_magnitude(wav.astype(np.float32), _N_FFT, _HOP) ** 2
    return 10 * np.log10(np.maximum(power, 1e-10))


def save_spectrogram_png(
    path: str | os.PathLike | io.BytesIO, wav: Float[np.ndarray, "N"], sample_rate: int, title: str
) -> None:
    """Draw the log-mel spectrogram over seconds and Hz, with a dB scale relative to its loudest point."""
    from matplotlib.figure import Figure  # not pyplot: no display and no global state
    from matplotlib.ticker import ScalarFormatter

    mel = log_mel_spectrogram(wav, sample_rate)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    seconds = np.arange(mel.shape[1]) * _HOP / sample_rate
    hertz = librosa.mel_frequencies(_MELS + 2, fmin=0.0, fmax=sample_rate / 2)[1:-1]
    image = axes.pcolormesh(seconds, hertz, mel - mel.max(), vmin=-_RANGE_DB, vmax=0.0, cmap="magma")
    axes.set_yscale("symlog", base=2, linthresh=1000.0)  # the scale of Slaney's mel: linear below 1 kHz
    axes.set_ylim(0.0, sample_rate / 2)
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="seconds", ylabel="Hz")
    axes.set_title(title, wrap=True)
    figure.colorbar(image, ax=axes, label="dB")
    figure.savefig(path, format="png", dpi=100)


def spectrogram_image(wav: Float[np.ndarray, "N"], sample_rate: int) -> UInt8[np.ndarray, "128 T 3"]:
    """RGB pixels of the log-mel spectrogram, high frequencies on top, from black to bright in 80 dB."""
    from matplotlib import colormaps

    mel = log_mel_spectrogram(wav, sample_rate)
    brightness = np.clip(1.0 + (mel - mel.max()) / _RANGE_DB, 0.0, 1.0)
    return colormaps["magma"](brightness[::-1], bytes=True)[..., :3]
