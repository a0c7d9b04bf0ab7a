"""Audio input: kept as FLAC in records, turned into log-mel windows when a batch is made."""

import dataclasses
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32, Int

from ualm_jax.audio.mel import HOP, SAMPLE_RATE, MelFrontEnd, MelWindow, frames_out
from ualm_jax.tokens.types import Message, Modality

SHORTEST = 3 * HOP  # samples that give one encoder frame with every front end


class Size(NamedTuple):
    """What a conversation, or a clip of it, takes of a batch row: positions, and mel windows. Integers, or arrays."""

    length: int | Int[np.ndarray, "_"]
    windows: int | Int[np.ndarray, "_"]


def clip_size(front_end: MelFrontEnd, samples: int | Int[np.ndarray, "_"]) -> Size:
    """Size of a clip of this many 16 kHz samples, or of many clips: what `front_end.window_frames` says, in bulk."""
    if not front_end.windowed:
        length = frames_out(samples // HOP)
        return Size(length, (length > 0) + 0)
    full, rest = divmod(samples, front_end.chunk_frames * HOP)
    last = frames_out(-(-rest // HOP))
    return Size(full * frames_out(front_end.chunk_frames) + last, full + (last > 0))


def to_flac(wav: Float32[np.ndarray, "N"]) -> bytes:
    """A 16 kHz mono waveform as a FLAC file; the same samples always give the same bytes. Peaks above 1 are cut."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(wav, -1.0, 1.0), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def from_flac(data: bytes) -> Float32[np.ndarray, "N"]:
    """The inverse of `to_flac`, to 16 bits."""
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]


def mel_windows(front_end: MelFrontEnd, clips: Sequence[bytes]) -> list[MelWindow]:
    """The mel windows of FLAC-coded clips, one clip after the other."""
    return [window for clip in clips for window in front_end.features(from_flac(clip))]


def with_frames(messages: Sequence[Message], front_end: MelFrontEnd | None) -> tuple[Message, ...]:
    """A record's messages as the token layout wants them: clips counted in encoder frames instead of samples.

    `front_end` may be None where there are no clips.
    """
    return tuple(
        dataclasses.replace(message, content=clip_size(front_end, message.content).length)
        if message.modality == Modality.CLIP
        else message
        for message in messages
    )
