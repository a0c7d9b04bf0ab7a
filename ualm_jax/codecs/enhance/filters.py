"""Exact linear-phase filters: they part low from high, and resample between 16 and 48 kHz.

Filters are symmetric and centred, so nothing is moved in time by them: sample n of 16 kHz is sample 3n of 48 kHz.
"""

import functools

import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float, Float32

from ualm_jax.codecs.enhance.config import FACTOR, RATE_IN, RATE_OUT

PASSED_HZ = 7000  # up to which `mono_input` is whole
_STOPPED_DB = 110.0  # attenuation in the stop band


@functools.cache
def lowpass(passed_hz: int) -> Float32[np.ndarray, " K"]:
    """Taps at 48 kHz: up to `passed_hz` all passes, from 8 kHz on nothing (Kaiser's window)."""
    import scipy.signal  # takes a second, which few who import this need

    nyquist = RATE_IN / 2
    count, beta = scipy.signal.kaiserord(_STOPPED_DB, (nyquist - passed_hz) / (RATE_OUT / 2))
    taps = scipy.signal.firwin(count | 1, (passed_hz + nyquist) / 2, window=("kaiser", beta), fs=RATE_OUT)
    return taps.astype(np.float32)


def filtered(x: Float[Array, "*B N"], taps: Float32[np.ndarray, " K"]) -> Float[Array, "*B N"]:
    """x convolved with centred taps; silence lies around it."""
    samples, half = x.shape[-1], len(taps) // 2
    size = _fast_length(samples + len(taps) - 1)
    response = np.fft.rfft(taps.astype(np.float64), size).astype(np.complex64)
    return jnp.fft.irfft(jnp.fft.rfft(x, size) * response, size)[..., half : half + samples]


def upsampled(x: Float[Array, "*B N"], taps: Float32[np.ndarray, " K"]) -> Float[Array, "*B M"]:
    """x resampled from 16 to 48 kHz and filtered with `taps`; M = 3 N."""
    spread = jnp.pad(x[..., None], [(0, 0)] * x.ndim + [(0, FACTOR - 1)]).reshape(*x.shape[:-1], -1)
    return filtered(spread, FACTOR * taps)


def downsampled(x: Float[np.ndarray, " N"], passed_hz: int) -> Float32[np.ndarray, " M"]:
    """x resampled from 48 to 16 kHz, on the host; M = ceil(N / 3)."""
    import scipy.signal

    return scipy.signal.resample_poly(x, 1, FACTOR, window=lowpass(passed_hz).astype(np.float64)).astype(np.float32)


def mono_input(stereo: Float[np.ndarray, "N 2"]) -> Float32[np.ndarray, " M"]:
    """16 kHz mono of 48 kHz stereo: what an enhancer is given where the two are to be compared; M = ceil(N / 3)."""
    return downsampled(stereo.mean(axis=1), PASSED_HZ)


def _fast_length(samples: int) -> int:
    """The next product of small primes: transforms of such lengths are fast."""
    return scipy.fft.next_fast_len(samples, real=True)
