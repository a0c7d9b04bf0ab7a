"""What an enhancer learns from: 48 kHz stereo, and the 16 kHz mono that could have been all that is left of it."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float32

from ualm_jax.codecs.enhance.filters import downsampled
from ualm_jax.errors import UserError
from ualm_jax.fields import NotNegative, Share, check_fields

_PASSED_HZ = (6800, 7600)  # where recorders and resamplers begin to take away, drawn evenly
_CURVE = np.geomspace(50, 8000, 7)  # Hz at which the gain of an equaliser is drawn
_RING = 2048  # samples within which an equaliser's answer has died away
_QUIETEST = 1e-4  # RMS that noise is measured by at least


@dataclasses.dataclass(frozen=True)
class DegradationConfig:
    """How 16 kHz sounds are made worse, so that an enhancer learns to mend them.

    codec: folder of an X-codec that encodes and decodes a share `codec_share` of the crops, as what models make.
    equaliser_share: of the crops that are coloured, by up to equaliser_db at any frequency.
    noise_share: of the crops that get noise, white to brown, by noise_db (lowest, highest) louder than the crop.
    """

    codec: str | None = None
    codec_share: Share = 0.5
    equaliser_share: Share = 0.0
    equaliser_db: NotNegative = 6.0
    noise_share: Share = 0.0
    noise_db: tuple[float, ...] = (-60.0, -30.0)

    def __post_init__(self):
        check_fields(self, "pairs")
        if len(self.noise_db) != 2 or self.noise_db[0] > self.noise_db[1]:
            raise UserError(f"pairs.noise_db must be two numbers, the smaller one first, got {self.noise_db}.")


@dataclasses.dataclass(frozen=True)
class PairMaker:
    """Batches of pairs: sample n of the low sound is sample 3n of the wanted one.

    rows: of a batch of `batch_size`, those that are made here. through_codec: waveforms to what a codec leaves of them.
    """

    config: DegradationConfig
    seed: int
    batch_size: int
    rows: slice
    through_codec: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]] | None = None

    def __call__(self, number: int, crops: Float32[np.ndarray, "B N 2"]) -> dict[str, np.ndarray]:
        """{"low": [B, N / 3], "wav": [B, N, 2]} of batch `number`: a function of the seed, the number and the crops."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, number, 1])))
        # Drawn for all rows, so that a row does not depend on which process makes it.
        passed = rng.integers(*_PASSED_HZ, self.batch_size, endpoint=True) // 100 * 100
        chosen = {
            name: rng.random(self.batch_size)[self.rows] < getattr(self.config, f"{name}_share") for name in _STEPS
        }
        curves = rng.uniform(-1, 1, (self.batch_size, len(_CURVE)))[self.rows] * self.config.equaliser_db
        noise_db = rng.uniform(*self.config.noise_db, self.batch_size)[self.rows]
        slopes = rng.uniform(-1, 0, self.batch_size)[self.rows]
        seeds = rng.integers(2**63, size=self.batch_size)[self.rows]
        low = np.stack([downsampled(crop.mean(1), int(hz)) for crop, hz in zip(crops, passed[self.rows], strict=True)])
        for row in np.flatnonzero(chosen["equaliser"]):
            low[row] = coloured(low[row], curves[row])
        for row in np.flatnonzero(chosen["noise"]):
            low[row] += _noise(int(seeds[row]), low[row], float(noise_db[row]), float(slopes[row]))
        picked = np.flatnonzero(chosen["codec"])
        if self.through_codec is not None and len(picked):
            low[picked] = np.stack(self.through_codec(list(low[picked])))
        return {"low": low, "wav": crops}


_STEPS = ("equaliser", "noise", "codec")


def coloured(wav: Float32[np.ndarray, " N"], gains_db: np.ndarray) -> Float32[np.ndarray, " N"]:
    """wav (16 kHz) through an equaliser of these gains at 50 to 8000 Hz; nothing is moved in time."""
    size = scipy.fft.next_fast_len(len(wav) + _RING, real=True)
    hz = np.fft.rfftfreq(size, 1 / 16000)
    gain = 10 ** (np.interp(np.log(np.maximum(hz, 1.0)), np.log(_CURVE), gains_db) / 20)
    return np.fft.irfft(np.fft.rfft(wav, size) * gain, size)[: len(wav)].astype(np.float32)


def _noise(seed: int, wav: Float32[np.ndarray, " N"], db: float, slope: float) -> Float32[np.ndarray, " N"]:
    """Noise whose magnitudes go with the frequency to the power of `slope`."""
    rng = np.random.Generator(np.random.Philox(seed))
    hz = np.maximum(np.fft.rfftfreq(len(wav), 1 / 16000), 30.0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(wav))) * hz**slope, len(wav))
    rms = max(float(np.sqrt(np.mean(wav.astype(np.float64) ** 2))), _QUIETEST)
    return (noise * (rms * 10 ** (db / 20) / np.sqrt(np.mean(noise**2)))).astype(np.float32)
