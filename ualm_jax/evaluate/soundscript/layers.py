"""Two sounds at once: a long low tone, and what is struck above it. A filter between their bands tells them apart."""

import numpy as np
from jaxtyping import Float
from scipy.signal import butter, sosfiltfilt

from ualm_jax.evaluate.soundscript.segments import HOP, RATE, Stretch, envelope_db

_CROSSING = 850.0  # Hz: tones that others sound over lie below 500, what is struck above 800
_ORDER = 8
_SHORTEST = 100  # values (0.5 s): only long tones are sounded over
_STRUCK_DB = 15.0  # by which blows stand out of the upper band of the stretch
_LOW = butter(_ORDER, _CROSSING, "lowpass", fs=RATE, output="sos")
_HIGH = butter(_ORDER, _CROSSING, "highpass", fs=RATE, output="sos")


def layers(
    wav: Float[np.ndarray, "N"], level: Float[np.ndarray, "T"], stretch: Stretch
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]] | None:
    """The lower and the upper band of a stretch, with silence around it; None where nothing stands out of the upper.

    level: envelope of the whole waveform.
    """
    if stretch.stop - stretch.first < _SHORTEST:
        return None
    first, stop = stretch.first * HOP, min(len(wav), stretch.stop * HOP)
    part = wav[first:stop].astype(np.float64)
    high = sosfiltfilt(_HIGH, part)
    above = envelope_db(high.astype(np.float32))
    if above.max() - np.median(above) < _STRUCK_DB or above.max() < level.max() - 30.0:
        return None
    around = (first, len(wav) - stop)
    return np.pad(sosfiltfilt(_LOW, part), around), np.pad(high, around)
