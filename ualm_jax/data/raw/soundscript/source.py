"""The endless supply: sound i of seed s, on demand."""

import dataclasses
from typing import Annotated, Any

import numpy as np

from ualm_jax.data.raw.sound_source import CaptionedSound
from ualm_jax.data.raw.soundscript.caption import caption
from ualm_jax.data.raw.soundscript.compose import compose
from ualm_jax.data.raw.soundscript.render import TooLoud, render
from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, check_fields

_REVISION = 1  # to be raised whenever the same seed starts to give other sounds or captions

SampleRate = Annotated[int, Bounds(at_least=16000)]  # of which hi-hats have need
_Seconds = Annotated[float, Bounds(at_least=0.5, at_most=3600)]


@dataclasses.dataclass(frozen=True)
class SoundScript:
    """`count` generated sounds of min_seconds to max_seconds. Sound i depends on the settings and i, not on count.

    Implements SoundSource. Raises UserError for settings that no sound can meet.
    """

    count: Count
    seed: Natural
    sample_rate: SampleRate = 16000
    min_seconds: _Seconds = 1.0
    max_seconds: _Seconds = 4.0

    name = "soundscript"
    left_out = ()

    def __post_init__(self):
        check_fields(self, "soundscript")
        if self.max_seconds < self.min_seconds:
            raise UserError(
                f"soundscript.min_seconds must be at most max_seconds, got {self.min_seconds} and {self.max_seconds}."
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> CaptionedSound:
        if not 0 <= index < self.count:
            raise IndexError(f"sound {index} of {self.count}")
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, index])))
        while True:
            scene = compose(rng, self.min_seconds, self.max_seconds)
            text = caption(scene, rng)
            try:
                wav = render(scene, self.sample_rate)
            except TooLoud:  # one in some 30 000, where loud events meet
                continue
            return CaptionedSound(f"soundscript-{self.seed}-{index}", text, wav, self.sample_rate, scene.to_dict())

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": self.name, "revision": _REVISION, **dataclasses.asdict(self)}
