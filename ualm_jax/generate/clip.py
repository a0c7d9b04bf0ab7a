"""What a model has made, for people: a sound or a text."""

import dataclasses
import os
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ualm_jax.audio.write import Loudness, write_sound
from ualm_jax.errors import UserError
from ualm_jax.generate.sampling import SamplingParams


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A sound that a model has made.

    samples: mono, not clipped, at `rate` Hz. codes: of the codec, [frames, codebooks]. prompt: the text that asked for
    it. settings: how it was drawn; settings.seed is its own. end: "eos" or "eot" where the model ended it, None where
    a limit did. modality: "audio" or "speech".
    log_probabilities: where they were asked for, of the model for each sampled token, [steps, streams]; 0 where a
        stream holds nothing.
    made_by: the checkpoint: its path and step.
    """

    samples: Float[np.ndarray, " N"]
    rate: int
    codes: Int[np.ndarray, "T Q"]
    prompt: str
    settings: SamplingParams
    end: str | None = None
    modality: str = "audio"
    log_probabilities: Float[np.ndarray, "n S"] | None = None
    made_by: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def save(self, path: str | os.PathLike, *, depth: str | None = None, loud: Loudness | None = None) -> float:
        """Writes a .wav, .flac, .ogg or .mp3 file. Nothing is clipped: returns the gain that was used.

        depth, loud: see `audio.write.write_sound`. Raises UserError for another suffix, OSError where there is no room.
        """
        return write_sound(path, self.samples, self.rate, depth=depth, loud=loud)

    def show(self) -> None:
        """A player below the cell of a notebook. Raises UserError where IPython is not installed."""
        try:
            from IPython.display import Audio, display
        except ImportError:
            raise UserError("A clip can be shown where IPython is (in a notebook); save it to a file here.") from None
        loudest = max(1.0, float(np.abs(self.samples).max(initial=0.0)))
        display(Audio(self.samples / loudest, rate=self.rate, normalize=False))

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
    made_by: dict[str, Any] = dataclasses.field(default_factory=dict)
    modality: str = "text"

    @property
    def seed(self) -> int:
        return self.settings.seed

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<text of {len(self.ids)} tokens, seed {self.seed}: {self.text!r}>"
