"""Sounds in an HTML page that needs nothing beside it."""

import base64
import io

import numpy as np
from jaxtyping import Float

from ualm_jax.audio.spectrogram import spectrogram_image


def picture(wav: Float[np.ndarray, "N"], sample_rate: int) -> str:
    """An <img> of the spectrogram."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(spectrogram_image(wav, sample_rate)), format="png")
    return f'<img alt="spectrogram" src="data:image/png;base64,{_base64(file)}">'


def player(wav: Float[np.ndarray, "N"], sample_rate: int) -> str:
    """An <audio> of the sound, cut at full scale."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(wav, -1.0, 1.0), sample_rate, format="WAV", subtype="PCM_16")
    return f'<audio controls src="data:audio/wav;base64,{_base64(file)}"></audio>'


def _base64(file: io.BytesIO) -> str:
    return base64.b64encode(file.getvalue()).decode()
