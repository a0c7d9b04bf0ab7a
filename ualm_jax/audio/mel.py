"""From a waveform to the log-mel windows an audio encoder hears, and how many frames it returns. No JAX."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32

from ualm_jax.errors import UserError

SAMPLE_RATE = 16_000
HOP = 160  # samples per mel frame: 100 frames a second
N_FFT = 400
MEL_BINS = 128

Count = TypeVar("Count")


@functools.cache
def _mel_filters() -> Any:
    """Slaney filters [F, spectrum], 0-8 kHz, area-normalised: a sparse array, since each covers few bins, and since
    the threads of a dense product this small wait for each other (7 ms for a clip of 1.7 s on busy cores)."""
    import librosa  # both here: training and generating without sound to hear need neither
    import scipy.sparse

    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=MEL_BINS, fmin=0.0, fmax=8000.0)
    return scipy.sparse.csr_array(filters, dtype=np.float64)


def _mel_power(frames: Float32[np.ndarray, "M 400"]) -> Float64[np.ndarray, "M F"]:
    """Power in every mel bin, at least 1e-10. In float64: in float32 the rounding of a loud tone's transform
    drowns the quiet bins, 8 decades lower, by up to 6e-5 of the result."""
    hann = np.hanning(N_FFT + 1)[:-1]  # periodic: the symmetric window of N + 1, less its last point
    spectrum = np.fft.rfft(frames * hann)
    return np.maximum((_mel_filters() @ (spectrum.real**2 + spectrum.imag**2).T).T, 1e-10)


def log_mel(
    wav: Float[np.ndarray, "N"], *, pad_to_samples: int | None = None, normalize: bool = False
) -> Float32[np.ndarray, "F M"]:
    """Whisper's log-mel spectrogram of a 16 kHz mono waveform; F = 128 bins, M = samples // 160 frames.

    The numbers are those of `transformers.WhisperFeatureExtractor(feature_size=128)`: periodic Hann window of
    400, hop 160, reflected edges, power, log10 floored 8 decades under the loudest bin of the whole waveform
    (so a loud passage changes what quiet frames far from it look like).

    Args:
        pad_to_samples: append zeros up to this many samples; None keeps the waveform's own length
            (so the last frames see the reflected end, not silence).
        normalize: bring the waveform, before padding, to zero mean and unit variance.

    Raises:
        ValueError: the waveform is longer than `pad_to_samples`, or too short (200 samples) to be reflected.
    """
    wav = wav.astype(np.float32)
    if normalize:
        wav = (wav - wav.mean()) / np.sqrt(wav.var() + 1e-7)
    if pad_to_samples is not None:
        if len(wav) > pad_to_samples:
            raise ValueError(f"waveform of {len(wav)} samples does not fit into {pad_to_samples}")
        wav = np.pad(wav, (0, pad_to_samples - len(wav)))
    if len(wav) <= N_FFT // 2:
        raise ValueError(f"waveform of {len(wav)} samples is too short: more than {N_FFT // 2} needed")

    num_frames = len(wav) // HOP
    edged = np.pad(wav, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(edged, N_FFT)[: num_frames * HOP : HOP]
    blocks = range(0, num_frames, 1000)  # bounds the memory of a long clip
    log = np.log10(np.concatenate([_mel_power(frames[start : start + 1000]) for start in blocks]))
    log = np.maximum(log, log.max() - 8.0)
    return np.ascontiguousarray(((log + 4.0) / 4.0).T, dtype=np.float32)


def frames_out(num_mel_frames: Count) -> Count:
    """Encoder frames (25 Hz) for this many mel frames (100 Hz): an integer, or an array of them.

    A convolution of stride 2 leaves (L + 1) // 2; then pairs are averaged, and an odd last one is dropped.
    """
    return (num_mel_frames + 1) // 4


class MelWindow(NamedTuple):
    """One row of an encoder's input: mel [F, M]; the first `frames` of its M columns are sound."""

    mel: np.ndarray
    frames: int


@dataclasses.dataclass(frozen=True)
class MelFrontEnd:
    """What one audio encoder makes of a clip before the network.

    chunk_frames: batches are padded to a multiple of this many mel frames.
    windowed: a clip is cut into windows of `chunk_frames`, each padded with silence to its full length before
        the mel (AF-Whisper); otherwise it is one window of its own length (Qwen2.5-Omni).
    normalize: every window's waveform is brought to zero mean and unit variance first.
    max_seconds: the longest clip that is taken.
    """

    chunk_frames: int
    windowed: bool
    normalize: bool
    max_seconds: float

    @property
    def batch_frames(self) -> int:
        """Mel frames M of a window where many are stacked: as many as the longest has, in whole chunks."""
        if self.windowed:
            return self.chunk_frames
        return math.ceil(self.max_seconds * SAMPLE_RATE / HOP / self.chunk_frames) * self.chunk_frames

    def window_frames(self, num_samples: int) -> tuple[int, ...]:
        """Mel frames of sound in each window of a clip of this many 16 kHz samples.

        A last window so short (at most 20 ms) that the encoder returns nothing for it is left out.

        Raises:
            UserError: the clip is longer than `max_seconds`, or too short to give one encoder frame.
        """
        if num_samples > self.max_seconds * SAMPLE_RATE:
            raise UserError(
                f"an audio clip lasts {num_samples / SAMPLE_RATE:.2f} s, but the audio encoder takes at most "
                f"{self.max_seconds:g} s: cut the clip, or leave it out"
            )
        if self.windowed:
            full, rest = divmod(num_samples, self.chunk_frames * HOP)
            # the padded silence completes the frame in which the sound ends, hence rounding up
            frames = (self.chunk_frames,) * full + (-(-rest // HOP),)
        else:
            frames = (num_samples // HOP,)
        heard = tuple(count for count in frames if frames_out(count))
        if not heard:
            raise UserError(
                f"an audio clip has {num_samples} samples at 16 kHz, too few for one frame of the audio "
                "encoder: leave it out"
            )
        return heard

    def clip_length(self, num_samples: int) -> int:
        """Rows of a token grid that a clip of this many 16 kHz samples takes. Raises as `window_frames`."""
        return sum(frames_out(frames) for frames in self.window_frames(num_samples))

    def features(self, wav: Float[np.ndarray, "N"]) -> list[MelWindow]:
        """The mel windows of a 16 kHz mono clip, in order of time. Raises as `window_frames`."""
        counts = self.window_frames(len(wav))
        if not self.windowed:
            return [MelWindow(log_mel(wav, normalize=self.normalize), counts[0])]
        size = self.chunk_frames * HOP
        pieces = (wav[i * size : (i + 1) * size] for i in range(len(counts)))
        return [
            MelWindow(log_mel(piece, pad_to_samples=size, normalize=self.normalize), frames)
            for piece, frames in zip(pieces, counts, strict=True)
        ]


def stack_windows(
    windows: Sequence[MelWindow], num_frames: int
) -> tuple[Float32[np.ndarray, "N F M"], Int32[np.ndarray, "N"]]:
    """Windows as one array of M = `num_frames` columns, zeros behind shorter ones; their frames of sound."""
    mels = np.zeros((len(windows), MEL_BINS, num_frames), np.float32)
    for row, window in zip(mels, windows, strict=True):
        row[:, : window.mel.shape[1]] = window.mel
    return mels, np.array([window.frames for window in windows], np.int32)


def feature_indices(lengths: Sequence[int], num_frames: int) -> Int32[np.ndarray, "R"]:
    """Where the real encoder frames are when windows of `num_frames` columns are encoded and laid end to end.

    `lengths` are the windows' frames of sound; what this returns goes into `Batch.feature_index`.
    """
    starts = range(0, len(lengths) * (num_frames // 4), num_frames // 4)
    indices = [start + np.arange(frames_out(length)) for start, length in zip(starts, lengths, strict=True)]
    return np.concatenate(indices).astype(np.int32)
