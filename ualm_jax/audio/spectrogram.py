"""Log-mel spectrograms to look at: as an array, as a labelled PNG, as pixels for TensorBoard."""

import io
import os

import librosa
import numpy as np
from jaxtyping import Float, Float32, UInt8

_N_FFT = 1024
_HOP = 256
_MELS = 128
_RANGE_DB = 80.0  # what a picture shows below its loudest point


def log_mel_spectrogram(wav: Float[np.ndarray, "N"], sample_rate: int) -> Float32[np.ndarray, "128 T"]:
    """Mel power in dB, lowest band first, one column per 256 samples. A full-scale sine is far above 0 dB."""
    power = librosa.feature.melspectrogram(
        y=wav.astype(np.float32), sr=sample_rate, n_fft=_N_FFT, hop_length=_HOP, n_mels=_MELS
    )
    return librosa.power_to_db(power, top_db=None)


def save_spectrogram_png(
    path: str | os.PathLike | io.BytesIO, wav: Float[np.ndarray, "N"], sample_rate: int, title: str
) -> None:
    """Draw the log-mel spectrogram over seconds and Hz, with a dB scale relative to its loudest point."""
    import librosa.display
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    mel = log_mel_spectrogram(wav, sample_rate)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    image = librosa.display.specshow(
        mel - mel.max(),
        sr=sample_rate,
        hop_length=_HOP,
        x_axis="time",
        y_axis="mel",
        vmin=-_RANGE_DB,
        vmax=0.0,
        ax=axes,
    )
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
