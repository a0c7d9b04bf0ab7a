"""What every audio codec offers to the rest of the project."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int


@runtime_checkable
class Codec(Protocol):
    """Mono waveforms to discrete codes and back, frozen and deterministic.

    A clip's codes are a function of the clip alone: `encode_batch` and `decode_batch` return exactly what
    one call per clip returns.
    """

    sample_rate: int  # Hz
    hop: int  # samples per frame
    frame_rate: float  # frames per second
    codebook_sizes: tuple[int, ...]
    context: int  # frames on either side that the samples of a frame may depend on when it is decoded

    def encode(self, wav: Float[np.ndarray, "N"]) -> Int[np.ndarray, "T Q"]: ...

    def decode(self, codes: Int[np.ndarray, "T Q"]) -> Float[np.ndarray, "N"]: ...

    def encode_batch(self, wavs: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_ Q"]]: ...

    def decode_batch(self, codes: Sequence[Int[np.ndarray, "_ Q"]]) -> list[Float[np.ndarray, "_"]]: ...
