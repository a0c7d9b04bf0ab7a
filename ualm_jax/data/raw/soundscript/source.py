"""The endless supply: sound i of seed s, on demand."""

import dataclasses
from typing import Any

import numpy as np

from ualm_jax.data.raw.sound_source import CaptionedSound
from ualm_jax.data.raw.soundscript.caption import caption
from ualm_jax.data.raw.soundscript.compose import compose
from ualm_jax.data.raw.soundscript.render import TooLoud, render
from ualm_jax.errors import UserError

_REVISION = 1  # to be raised whenever the same seed starts to give other sounds or captions


@dataclasses.dataclass(frozen=True)
class SoundScript:
    """`count` generated sounds of min_seconds to max_seconds. Sound i depends on the settings and i, not on count.

    Implements SoundSource. Raises UserError for settings that no sound can meet.
    """

    count: int
    seed: int
    sample_rate: int = 16000
    min_seconds: float = 1.0
    max_seconds: float = 4.0

    name = "soundscript"
    left_out = ()

    def __post_init__(self):
        if self.count < 1:
            raise UserError(f"soundscript: count must be at least 1, not {self.count}")
        if self.seed < 0:
            raise UserError(f"soundscript: seed must not be negative, but it is {self.seed}")
        if self.sample_rate < 16000:
            raise UserError(f"soundscript: its hi-hats need a sample_rate of 16000 Hz or more, not {self.sample_rate}")
        if not 0.5 <= self.min_seconds <= self.max_seconds:
            raise UserError(
                "soundscript: expected 0.5 <= min_seconds <= max_seconds, "
                f"found {self.min_seconds} and {self.max_seconds}"
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
