"""What a model has made, for people: a sound or a text."""

import dataclasses
import functools
import hashlib
import os
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ualm_jax import __version__
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.errors import UserError
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.output import save_sound
from ualm_jax.generate.sampling import SamplingParams


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A sound that a model has made.

    samples: mono, not clipped, at `rate` Hz. codes: of the codec, [frames, codebooks]. prompt: the text that asked for
    it. settings: how it was drawn; settings.seed is its own. end: "eos" or "eot" where the model ended it, None where
    a limit did. modality: "audio" or "speech".
    log_probabilities: where they were asked for, of the model for each sampled token, [steps, streams]; 0 where a
        stream holds nothing.
    enhancer: what makes 48 kHz stereo of it, see `sound`. made_by: the checkpoint. negative: the prompt that guidance
    led away from, None for the empty one. context: what it was made from besides all that, in words; None for nothing,
    and then it can be made again from this alone.
    """

    samples: Float[np.ndarray, " N"]
    rate: int
    codes: Int[np.ndarray, "T Q"]
    prompt: str
    settings: SamplingParams
    end: str | None = None
    modality: str = "audio"
    log_probabilities: Float[np.ndarray, "n S"] | None = None
    enhancer: Enhancer | None = None
    made_by: MadeBy = MadeBy()
    negative: str | None = None
    context: str | None = None

    @functools.cached_property
    def sound(self) -> tuple[Float[np.ndarray, " N"] | Float[np.ndarray, "N 2"], int]:
        """(samples, rate) of what is saved and shown: 48 kHz stereo where there is an enhancer. What continues, scores
        or hears the clip uses `samples`, as the model made it."""
        if self.enhancer is None or not len(self.samples):
            return self.samples, self.rate
        return self.enhancer.enhance(self.samples), self.enhancer.sample_rate

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def save(
        self, path: str | os.PathLike, *, depth: str | None = None, loudness: str | None = None, plot: bool = False
    ) -> float:
        """Writes a .wav, .flac, .ogg or .mp3 file; how it was made stands in it and in PATH.json beside it. Nothing is
        clipped: returns the gain that was used.

        depth: "16" bits (default), "24" or "float", where the format has a choice. loudness: "peak=-1", "rms=-20" or
        "lufs=-16", in dB; by default as the model made it. plot: also draw a spectrogram, PATH.png.
        Raises UserError for what cannot be written so, OSError where there is no room; then nothing has been written.
        """
        return save_sound(path, *self.sound, self.record(), depth=depth, loudness=loudness, plot=plot)

    def record(self) -> dict[str, Any]:
        """How it was made, ready for JSON: `replay.replay` makes it again. The first of a model takes a while, for its
        weights are read through."""
        import jax

        codes = np.ascontiguousarray(self.codes, np.int32)
        return {
            "prompt": self.prompt,
            "negative": self.negative,
            "context": self.context,
            "modality": self.modality,
            "seed": self.seed,
            "settings": dataclasses.asdict(self.settings),
            "end": self.end,
            "made_by": self.made_by.to_mapping(),
            "weights": self.made_by.weights,
            "codes": {"sha256": hashlib.sha256(codes.tobytes()).hexdigest(), "frames": len(codes)},
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "ualm_jax": __version__,
        }

    def show(self) -> None:
        """A player below the cell of a notebook. Raises UserError where IPython is not installed."""
        try:
            from IPython.display import Audio, display
        except ImportError:
            raise UserError("A clip can be shown where IPython is (in a notebook); save it to a file here.") from None
        samples, rate = self.sound
        loudest = max(1.0, float(np.abs(samples).max(initial=0.0)))
        display(Audio(samples.T / loudest, rate=rate, normalize=False))

    def __repr__(self) -> str:
        return f"<{self.modality} of {self.seconds:.2f} s, {self.rate} Hz, seed {self.seed}: {self.prompt!r}>"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Text:
    """A text that a model has made. ids: of its tokens. All else is as in `Clip`."""

    text: str
    ids: Int[np.ndarray, " n"]
    prompt: str
    settings: SamplingParams
    end: str | None = None
    log_probabilities: Float[np.ndarray, "n S"] | None = None
    made_by: MadeBy = MadeBy()
    negative: str | None = None
    context: str | None = None
    modality: str = "text"

    @property
    def seed(self) -> int:
        return self.settings.seed

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<text of {len(self.ids)} tokens, seed {self.seed}: {self.text!r}>"
