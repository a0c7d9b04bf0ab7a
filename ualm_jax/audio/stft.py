"""The short-time Fourier transform of pictures and metrics, in numpy."""

import numpy as np
from jaxtyping import Float


def stft_magnitude(wav: Float[np.ndarray, " N"], n_fft: int, hop: int) -> Float[np.ndarray, " F T"]:
    """Magnitudes of F = n_fft / 2 + 1 bins in T = 1 + N // hop frames under a periodic Hann window; dtype of `wav`.

    Frame t is centred at sample t * hop, with silence beyond the ends, as in `librosa.stft`, which Numba compiles for a
    quarter of a minute where it is called for the first time.
    """
    hann = np.hanning(n_fft + 1)[:-1].astype(wav.dtype)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wav, n_fft // 2), n_fft)[::hop]
    return np.abs(np.fft.rfft(frames * hann)).T
