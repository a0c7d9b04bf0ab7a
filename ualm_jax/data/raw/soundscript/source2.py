"""Language 2: sounds whose captions say all of a plan. Combinations and phrasings can be held out by rule."""

import dataclasses
from typing import Annotated, Any

import numpy as np

from ualm_jax.data.raw.sound_source import CaptionedSound
from ualm_jax.data.raw.soundscript.invent import draw_plan, realise, seconds_of
from ualm_jax.data.raw.soundscript.phrase import phrase
from ualm_jax.data.raw.soundscript.plan import LONGEST, Plan
from ualm_jax.data.raw.soundscript.render import render
from ualm_jax.data.raw.soundscript.scene import Scene
from ualm_jax.data.raw.soundscript.source import SampleRate
from ualm_jax.fields import Bounds, Count, Natural, OneOf, check_fields

_REVISION = 1  # to be raised whenever the same seed starts to give other sounds or captions
SPLITS = ("train", "combination", "phrasing")


@dataclasses.dataclass(frozen=True)
class Scripted:
    """A plan, a sentence that says all of it, and a scene that keeps it. split: of the source."""

    plan: Plan
    caption: str
    scene: Scene
    split: str


@dataclasses.dataclass(frozen=True)
class SoundScript2:
    """`count` generated sounds of 0.8 s to max_seconds. Sound i depends on the settings and i, not on count.

    split: "train" holds neither combinations nor phrasings that are held out; "combination" has in every plan a
    combination that "train" never has (plan.Plan.combinations), and "phrasing" sentences of frames that it never has.

    Implements SoundSource. Raises UserError for settings that no sound can meet.
    """

    count: Count
    seed: Natural
    sample_rate: SampleRate = 16000
    split: Annotated[str, OneOf(SPLITS)] = "train"
    max_seconds: Annotated[float, Bounds(at_least=1, at_most=LONGEST)] = LONGEST

    name = "soundscript"
    left_out = ()

    def __post_init__(self):
        check_fields(self, "soundscript")

    def __len__(self) -> int:
        return self.count

    def script(self, index: int) -> Scripted:
        """The scene and caption of sound `index`, without its samples."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([2, self.seed, index])))
        return self.draw(rng)

    def __getitem__(self, index: int) -> CaptionedSound:
        if not 0 <= index < self.count:
            raise IndexError(f"sound {index} of {self.count}")
        script = self.script(index)
        wav = render(script.scene, self.sample_rate)
        return CaptionedSound(self.id(index), script.caption, wav, self.sample_rate, script.scene.to_dict())

    def id(self, index: int) -> str:
        return f"soundscript2-{self.split}-{self.seed}-{index}"

    def fingerprint(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        if self.max_seconds == LONGEST:  # datasets begun before there was a choice go on
            del fields["max_seconds"]
        return {"kind": self.name, "language": 2, "revision": _REVISION, **fields}

    def draw(self, rng: np.random.Generator) -> Scripted:
        """Any sound of this split."""
        while True:
            plan = draw_plan(rng)
            if plan.held_out != (self.split == "combination") or seconds_of(plan) > self.max_seconds:
                continue
            caption = phrase(plan, rng, held_out=self.split == "phrasing")
            if caption is not None:
                return Scripted(plan, caption, realise(plan, rng), self.split)
