"""Target audio between `ualm data prepare --sounds-only` and `ualm data encode`: how it is stored."""

import dataclasses
import io

import numpy as np
import soundfile
from jaxtyping import Float32

from ualm_jax.codecs.base import Codec

PEAK = 2.0  # of full scale is what fits: resampling a sound of full scale makes peaks above it
_STEPS = 2**22  # integers up to full scale; 24 bits reach to PEAK


@dataclasses.dataclass(frozen=True)
class CodecShape:
    """What must be known of the codec to prepare sounds for it: sample rate in Hz, samples of a frame, codebooks."""

    sample_rate: int
    hop: int
    codebooks: int

    @classmethod
    def of(cls, codec: Codec) -> "CodecShape":
        return cls(codec.sample_rate, codec.hop, len(codec.codebook_sizes))


X_CODEC = CodecShape(sample_rate=16000, hop=320, codebooks=8)  # as released


def pack_sound(wav: Float32[np.ndarray, "N"], sample_rate: int) -> bytes:
    """A mono waveform as a 24-bit FLAC file at half its level; the same samples always give the same bytes.

    16-bit sound is kept exactly, other sound to 2^-23 of full scale. Raises ValueError above PEAK.
    """
    steps = np.rint(wav.astype(np.float64) * _STEPS)
    if len(wav) and not -PEAK * _STEPS <= steps.min() <= steps.max() < PEAK * _STEPS:
        raise ValueError(f"a peak of {np.abs(wav).max():g} does not fit, expected less than {PEAK:g}")
    file = io.BytesIO()
    # Integers, whose upper 24 bits are stored: libsndfile scales floats by different factors when writing and reading.
    soundfile.write(file, steps.astype(np.int32) << 8, sample_rate, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def unpack_sound(data: bytes) -> Float32[np.ndarray, "N"]:
    """The inverse of `pack_sound`."""
    return (soundfile.read(io.BytesIO(data), dtype="int32")[0] >> 8).astype(np.float32) / _STEPS
