"""Sound on its way to the codec: what is kept of it between `ualm data prepare` and `ualm data tokenize`."""

import dataclasses
import io

import numpy as np
import soundfile
from jaxtyping import Float32

from ualm_jax.codecs.base import Codec

PEAK = 2.0  # what FLAC can hold here: resampling makes peaks above full scale of sounds that just reach it
_STEPS = 2**22  # to full scale; 24 bits reach to PEAK


@dataclasses.dataclass(frozen=True)
class CodecShape:
    """What must be known of a codec before it is there.

    sample_rate in Hz; hop: samples of a frame; codebooks: how many.
    """

    sample_rate: int
    hop: int
    codebooks: int

    @classmethod
    def of(cls, codec: Codec) -> "CodecShape":
        return cls(codec.sample_rate, codec.hop, len(codec.codebook_sizes))


X_CODEC = CodecShape(sample_rate=16000, hop=320, codebooks=8)  # as released


def pack_sound(wav: Float32[np.ndarray, "N"], sample_rate: int) -> bytes:
    """A mono waveform as a 24-bit FLAC file of half its level; the same samples always give the same bytes.

    Sound of 16 bits is kept exactly, other to 2^-23 of full scale. Raises ValueError above PEAK.
    """
    steps = np.rint(wav.astype(np.float64) * _STEPS)
    if len(wav) and not -PEAK * _STEPS <= steps.min() <= steps.max() < PEAK * _STEPS:
        raise ValueError(f"a peak of {np.abs(wav).max():g} does not fit, expected less than {PEAK:g}")
    file = io.BytesIO()
    # Integers, of which the upper 24 bits count: of floats libsndfile would scale up and down by different factors.
    soundfile.write(file, steps.astype(np.int32) << 8, sample_rate, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def unpack_sound(data: bytes) -> Float32[np.ndarray, "N"]:
    """The inverse of `pack_sound`."""
    return (soundfile.read(io.BytesIO(data), dtype="int32")[0] >> 8).astype(np.float32) / _STEPS
