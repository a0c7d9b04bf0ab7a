"""What an enhancer makes of sounds, beside what doing nothing makes of them."""

import dataclasses
import os
import time
from collections.abc import Sequence

import numpy as np
import soxr
from jaxtyping import Float

from ualm_jax.codecs.enhance.config import HIGHEST_CROSSOVER, RATE_IN, RATE_OUT
from ualm_jax.codecs.enhance.filters import PASSED_HZ, mono_input
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.errors import UserError
from ualm_jax.evaluate import pictures
from ualm_jax.evaluate.audio_metrics import log_spectral_distance, si_sdr, stereo_level_difference

_UPPER = (RATE_IN / RATE_OUT, 1.0)  # the band that 16 kHz can not hold, as shares of the spectrum


@dataclasses.dataclass(frozen=True)
class Row:
    """Means over sounds. upper: log-spectral distance of the mid signal from 8 to 24 kHz, in log10 of power. level:
    error of the level difference of left and right in dB. low: RMS of what was changed below the crossover (7 kHz where
    there is none), divided by the input's. low_si_sdr: of the same band in dB, the median.
    """

    upper: float
    level: float
    low: float
    low_si_sdr: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """rows: "resampled" (the input, the same on both sides), "zero side" (the enhanced mid signal on both sides) and
    "enhanced". real_time: seconds of sound made in a second, compilation left out. seconds: of sound."""

    rows: dict[str, Row]
    real_time: float
    seconds: float


def inputs(wavs: Sequence[Float[np.ndarray, "_ 2"]], codec: XCodec | None = None) -> list[Float[np.ndarray, " _"]]:
    """The enhancer's inputs: 48 kHz stereo sounds brought to 16 kHz mono, and what this codec leaves of them."""
    lows = [mono_input(wav) for wav in wavs]
    return lows if codec is None else codec.round_trip(lows)


def resampled(low: Float[np.ndarray, " N"]) -> Float[np.ndarray, "M 2"]:
    """48 kHz stereo that holds nothing else than its 16 kHz mono input; M = 3 N."""
    mono = soxr.resample(low, RATE_IN, RATE_OUT, quality="HQ")[: 3 * len(low)]
    mono = np.pad(mono, (0, 3 * len(low) - len(mono)))
    return np.stack([mono, mono], axis=1)


def enhanced(enhancer: Enhancer, lows: Sequence[Float[np.ndarray, " _"]]) -> tuple[list[np.ndarray], float]:
    """What is made of the sounds, and how many times as fast as they sound."""
    for length in sorted({1 << (len(low) - 1).bit_length() for low in lows}):
        enhancer.enhance(np.zeros(length, np.float32))
    begun = time.perf_counter()
    made = [enhancer.enhance(low) for low in lows]
    return made, sum(map(len, lows)) / RATE_IN / (time.perf_counter() - begun)


def measure(
    enhancer: Enhancer, wavs: Sequence[Float[np.ndarray, "_ 2"]], codec: XCodec | None = None
) -> tuple[Measured, list[np.ndarray], list[np.ndarray]]:
    """The rows of these 48 kHz stereo sounds, the inputs, and what was made of them.

    codec: the inputs go through it, as models make them. Raises UserError where the sounds are silent.
    """
    wavs = [wav[: len(wav) - len(wav) % 3] for wav in wavs]
    lows = inputs(wavs, codec)
    made, real_time = enhanced(enhancer, lows)
    mids = [np.repeat(wav.mean(axis=1, keepdims=True), 2, axis=1) for wav in made]
    sides = {"resampled": [resampled(low) for low in lows], "zero side": mids, "enhanced": made}
    passed = min(enhancer.config.crossover_hz or PASSED_HZ, HIGHEST_CROSSOVER)
    rows = {name: _row(parts, wavs, lows, passed) for name, parts in sides.items()}
    return Measured(rows, real_time, sum(map(len, wavs)) / RATE_OUT), lows, made


def _row(made: list[np.ndarray], wanted: list[np.ndarray], lows: list[np.ndarray], passed: int) -> Row:
    pairs = list(zip(made, wanted, strict=True))
    upper = [log_spectral_distance(a.mean(1), b.mean(1), band=_UPPER) for a, b in pairs]
    level = [stereo_level_difference(a, b, RATE_OUT) for a, b in pairs]
    if np.isnan(level).all():
        raise UserError("the sounds are silent: nothing of them is above -60 dB, where levels can be compared.")
    heard = [_low_band(resampled(low)[:, 0], passed) for low in lows]
    kept = [(_low_band(wav.mean(axis=1), passed), low) for wav, low in zip(made, heard, strict=True)]
    changed = [_rms(a - b) / max(_rms(b), 1e-6) for a, b in kept]
    return Row(
        float(np.mean(upper)),
        float(np.nanmean(level)),
        float(np.mean(changed)),
        float(np.nanmedian([si_sdr(a, b) for a, b in kept])),
    )


def _low_band(wav: Float[np.ndarray, " M"], passed: int) -> Float[np.ndarray, " N"]:
    """What lies below `passed` Hz less a margin for the filter's slope, at 16 kHz, but for 8 ms at the ends, where all
    that is higher is cut off and heard as clicks."""
    import scipy.signal

    taps = scipy.signal.firwin(801, passed - 400, fs=RATE_OUT, window=("kaiser", 10.0))
    return scipy.signal.oaconvolve(wav, taps, mode="valid")[::3]


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x.astype(np.float64) ** 2)))


def draw(
    path: str | os.PathLike, wanted: Sequence[np.ndarray], lows: Sequence[np.ndarray], made: Sequence[np.ndarray]
) -> None:
    """A picture of spectrograms: of each sound the mid signals of the input, of what was made of it and of what it was,
    from 0 to 24 kHz, and the side signals of the last two."""
    sounds = [
        {
            "input": resampled(low)[:, 0],
            "enhanced, mid": sound.mean(1),
            "original, mid": target.mean(1),
            "enhanced, side": (sound[:, 0] - sound[:, 1]) / 2,
            "original, side": (target[:, 0] - target[:, 1]) / 2,
        }
        for target, low, sound in zip(wanted, lows, made, strict=True)
    ]
    pictures.draw(path, sounds, RATE_OUT)
