"""What people ask for: a text, perhaps with a sound, and how the answer is to be drawn."""

import dataclasses
import difflib
import math
import numbers
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float, Float32

from ualm_jax.audio.io import LONGEST, read_audio
from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip
from ualm_jax.generate.request import MODALITIES
from ualm_jax.generate.sampling import SamplingParams

Sound = str | os.PathLike | Clip | tuple[Float[np.ndarray, " _"], int] | Float[np.ndarray, " _"]
"""A sound file, a clip, mono samples with their rate in Hz, or mono samples at the rate of whoever takes them."""

LONGEST_UNASKED = 20.0  # seconds of audio that the model may make before it has to end, where nobody has said

_LOUDEST = 16.0  # times full scale, as in sound files
_TEXT_TOO = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """One answer to be made: "audio", "speech", "text", or "auto", and then the model chooses.

    sound: to be heard with the text. negative: what guidance leads away from, in place of the empty prompt.
    begin: audio that the answer begins with and goes on from. stop: strings, the first of which ends a text; it is not
    part of it. log_probabilities: whether those of the sampled tokens are wanted.
    """

    text: str
    params: SamplingParams = SamplingParams()
    modality: str = "audio"
    sound: Sound | None = None
    negative: str | None = None
    begin: Sound | None = None
    stop: tuple[str, ...] = ()
    log_probabilities: bool = False

    def __post_init__(self):
        if self.modality not in (*MODALITIES, "auto"):
            raise UserError(f"modality must be one of {', '.join(MODALITIES)} or auto, got {self.modality!r}.")
        for name in ("text", "negative"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise UserError(f"A prompt must be a text, got {type(value).__name__}.")
            if value is not None and not value.strip():
                raise UserError(f"The {'negative ' * (name == 'negative')}prompt is empty; say in words what is meant.")
        if self.begin is not None and self.modality not in ("audio", "speech"):
            raise UserError(f"Only audio and speech can be continued, not {self.modality}.")
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise UserError(f"stop must be strings of at least one character, got {self.stop}.")

    @property
    def context(self) -> str | None:
        """In words, what the answer depends on besides texts and settings."""
        if self.begin is not None:
            return "a sound that it begins with"
        return None if self.sound is None else "a sound that was heard"


def sampling(
    modality: str, frame_rate: float, seconds: int | float | None, settings: Mapping[str, Any]
) -> SamplingParams:
    """Settings by the names of `SamplingParams`; of a text answer, `temperature` means `text_temperature`, and so on.

    seconds: exactly so much audio. frame_rate: of the codec, in Hz. Raises UserError, naming what does not fit.
    """
    values = {}
    names = {field.name for field in dataclasses.fields(SamplingParams)}
    for name, value in settings.items():
        own = f"text_{name}" if name in _TEXT_TOO and (modality == "text" or name == "repetition_penalty") else name
        if own not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(names))}."
            raise UserError(f"There is no setting {name}; {hint}")
        values[own] = value
    if seconds is not None:
        if not isinstance(seconds, numbers.Real) or not (math.isfinite(seconds) and 0 < seconds <= LONGEST):
            raise UserError(f"seconds must be above 0 and at most {LONGEST}, got {seconds!r}.")
        frames = max(round(seconds * frame_rate), 1)
        values |= {"min_frames": frames, "max_frames": frames}
    values.setdefault("max_frames", max(round(LONGEST_UNASKED * frame_rate), values.get("min_frames", 1)))
    return SamplingParams(**values)


def audible(samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """What a model has made as people would hear it: turned down where it would clip."""
    return samples / np.float32(max(1.0, float(np.abs(samples).max(initial=0.0))))


def read_sound(sound: Sound, rate: int) -> Float32[np.ndarray, " M"]:
    """Mono samples at `rate` Hz. Raises UserError for what is no sound, or cannot be read."""
    if isinstance(sound, str | os.PathLike):
        return read_audio(sound, sample_rate=rate)
    if isinstance(sound, Clip):
        sound = audible(sound.samples), sound.rate
    samples, its_rate = sound if isinstance(sound, tuple) else (sound, rate)
    samples = np.asarray(samples)
    if samples.ndim != 1 or len(samples) == 0 or not np.issubdtype(samples.dtype, np.floating):
        raise UserError(
            f"A sound must be mono samples from -1 to 1, [n] of floats, got {samples.dtype} of shape {samples.shape}."
        )
    if not np.isfinite(samples).all():
        raise UserError("A sound must be finite samples, got NaN or infinity.")
    if (peak := float(np.abs(samples).max())) > _LOUDEST:
        raise UserError(f"A sound reaches {peak:g}, where full scale is 1; divide its samples by that.")
    if len(samples) > LONGEST * its_rate:
        raise UserError(f"A sound lasts {len(samples) / its_rate:.0f} s, which is more than {LONGEST} s; cut it.")
    samples = samples.astype(np.float32)
    return samples if its_rate == rate else soxr.resample(samples, its_rate, rate, quality="HQ")
