"""The X-codec: waveforms to codes and back."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from ualm_jax.codecs.xcodec import dac
from ualm_jax.codecs.xcodec.config import XCodecConfig
from ualm_jax.codecs.xcodec.hubert import hubert_length
from ualm_jax.codecs.xcodec.idle import without_idle
from ualm_jax.codecs.xcodec.network import features, waveform
from ualm_jax.codecs.xcodec.rvq import dequantize, quantize
from ualm_jax.codecs.xcodec.weights import read_directory
from ualm_jax.errors import UserError
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec

_SHORT = 64  # frames of the shortest program that decodes
_TOGETHER = 4096  # frames, padding included, that a device which is no CPU encodes at a time


class _Clip(NamedTuple):
    """What `network.features` takes, of one clip: a batch of one."""

    padded: Float[np.ndarray, "1 N"]
    samples: Int[np.ndarray, "1"]
    bare: Bool[np.ndarray, "1"]


class XCodec:
    """X-codec with frozen float32 weights; implements `codecs.base.Codec`.

    Each clip runs by itself, padded to a length that depends on its own length alone, with exact masks beyond its end.
    So its codes never depend on other clips, they are those of `transformers` without padding, and there are few
    compiled programs: one for clips of up to 2.5 s (and one that decodes up to 1.3 s), one for up to 5 s, and two for
    every doubling of the length from there on. Very long clips are computed in pieces, with the same results
    (pieces.py). A CPU encodes one clip at a time, other devices as many short ones as make 80 s: always that many, of
    which some are repeated where there are fewer, so that a clip meets the same program in any company. Several
    `devices` encode as many each.

    `encode` treats any length as HF's `XcodecModel.encode` does. Whoever needs whole frames (the UALM reference keeps
    the first floor(N / hop) * hop samples) cuts the waveform before.
    """

    def __init__(self, config: XCodecConfig, params: dict, devices: Sequence[jax.Device] | None = None):
        self.config = config
        # Not the mesh that the caller has set: under that one, every device would do all of the work.
        self._mesh = make_mesh(MeshConfig(), list(devices or jax.local_devices()[:1]))
        with jax.set_mesh(self._mesh):
            self.params = jax.device_put(without_idle(params), PartitionSpec())  # all in one call
        self.sample_rate = config.sample_rate
        self.hop = config.hop
        self.frame_rate = config.sample_rate / config.hop
        self.codebook_sizes = (config.codebook_size,) * config.num_quantizers
        self.context = dac.decoder_context(config.acoustic)

    @classmethod
    def from_directory(cls, path: str | Path, devices: Sequence[jax.Device] | None = None) -> "XCodec":
        """Load an HF directory (`config.json`, `model.safetensors`); see `weights.read_directory` for errors.

        devices: of this process, to encode on; by default the first.
        """
        return cls(*read_directory(path), devices)

    def encode(self, wav: Float[np.ndarray, "N"]) -> Int[np.ndarray, "T Q"]:
        """Mono samples at `sample_rate` to int32 codes. Raises UserError when too short or not finite."""
        return self.encode_batch([wav])[0]

    def decode(self, codes: Int[np.ndarray, "T Q"]) -> Float[np.ndarray, "N"]:
        """Codes to hop * T float32 samples, not clipped. Raises ValueError for codes that do not exist."""
        return self.decode_batch([codes])[0]

    def encode_batch(self, wavs: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_ Q"]]:
        """`encode` of each clip. Clips whose programs have one length run together, spread over the devices."""
        clips = [self._pad(wav) for wav in wavs]
        together: dict[int, list[int]] = {}
        for index, clip in enumerate(clips):
            together.setdefault(clip.padded.shape[1], []).append(index)
        started = []
        with jax.set_mesh(self._mesh):
            for samples, indices in together.items():
                count = self._mesh.size * self._rows(samples // self.hop)
                for start in range(0, len(indices), count):
                    chosen = indices[start : start + count]
                    # Rows that are left over repeat the last clip.
                    rows = [clips[index] for index in chosen + chosen[-1:] * (count - len(chosen))]
                    arrays = (np.concatenate(parts) for parts in zip(*rows, strict=True))
                    placed = (jax.device_put(array, spec("batch")) for array in arrays)
                    started.append((chosen, _encode(self.params, self.config, *placed)))
        codes = [None] * len(clips)
        for chosen, encoded in started:
            for index, row in zip(chosen, np.asarray(encoded), strict=False):
                codes[index] = row[: self._frames(len(wavs[index]))]
        return codes

    def decode_batch(self, codes: Sequence[Int[np.ndarray, "_ Q"]]) -> list[Float[np.ndarray, "_"]]:
        """`decode` of each clip, queued on the device together."""
        with jax.set_mesh(self._mesh):
            started = [self._start_decode(c) for c in codes]
        return [np.asarray(wav)[0, :samples] for wav, samples in started]

    def round_trip(self, wavs: Sequence[Float[np.ndarray, "_"]]) -> list[Float[np.ndarray, "_"]]:
        """What the codec leaves of each clip, as long as it was."""
        whole = [np.pad(wav, (0, -len(wav) % self.hop)) for wav in wavs]
        decoded = self.decode_batch(self.encode_batch(whole))
        return [made[: len(wav)] for made, wav in zip(decoded, wavs, strict=True)]

    def _rows(self, frames: int) -> int:
        """Clips of this length, padding included, that a device encodes together."""
        return 1 if self._mesh.devices.flat[0].platform == "cpu" else max(_TOGETHER // frames, 1)

    def _frames(self, samples: int) -> int:
        return hubert_length(self.config.semantic, samples + self.hop)

    def _pad(self, wav: np.ndarray) -> _Clip:
        samples, hop = len(wav), self.hop
        frames = self._frames(samples)
        if frames < 1:
            raise UserError(f"audio: expected at least one frame of {hop} samples to encode, found {samples} samples")
        if not np.isfinite(wav).all():
            raise UserError("audio: expected finite samples to encode, found NaN or infinity")
        # HuBERT hears half a hop of silence at each end, the acoustic encoder only where frames would not match.
        padded = np.zeros((1, hop * _bucket(-(-samples // hop) + 1)), np.float32)
        padded[0, hop // 2 : hop // 2 + samples] = wav
        bare = dac.encoder_length(self.config.acoustic, samples) == frames
        return _Clip(padded, np.int32([samples]), np.bool_([bare]))

    def _start_decode(self, codes: np.ndarray) -> tuple[Array, int]:
        if codes.shape[1] != len(self.codebook_sizes):
            raise ValueError(f"codes: expected {len(self.codebook_sizes)} codebooks, found {codes.shape[1]}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.config.codebook_size:
            raise ValueError(
                f"codes: expected 0 to {self.config.codebook_size - 1}, found {codes.min()} to {codes.max()}"
            )
        frames = len(codes)
        # Chunks of a stream are short, and come at every half a second.
        length = _SHORT if frames <= _SHORT else _bucket(frames)
        padded = np.zeros((1, length, codes.shape[1]), np.int32)
        padded[0, :frames] = codes
        return _decode(self.params, self.config, padded, np.int32([frames])), frames * self.hop


def _bucket(frames: int) -> int:
    """`frames` rounded up to 128, 256, 384, 512, 768, 1024, 1536, ..."""
    if frames <= 128:
        return 128
    step = 1 << max((frames - 1).bit_length() - 2, 7)
    return max(-(-frames // step) * step, 2 * step)


@partial(jax.jit, static_argnames="config")
def _encode(params: dict, config: XCodecConfig, *clips: Array) -> Int[Array, "B T Q"]:
    """Codes of as many clips on each device: the same program, however many there are. `clips`: `network.features`."""
    encode = jax.shard_map(
        lambda params, *clip: quantize(params["codebooks"], features(params, config, *clip), params.get("projections")),
        in_specs=(PartitionSpec(), *[spec("batch")] * len(clips)),
        out_specs=spec("batch"),
        check_vma=False,
    )
    with jax.default_matmul_precision("highest"):
        return encode(params, *clips)


@partial(jax.jit, static_argnames="config")
def _decode(
    params: dict, config: XCodecConfig, codes: Int[Array, "B T Q"], frames: Int[Array, "B"]
) -> Float[Array, "B N"]:
    with jax.default_matmul_precision("highest"):
        vectors = dequantize(params["codebooks"], codes, params.get("projections"))
        return waveform(params, config, vectors, frames)
