"""SoundScript's own ear as a listener: a program that hears a sound and writes a rich caption of it."""

import numpy as np
import soxr

from ualm_jax.data.raw.soundscript.rich import by_ear, rich_caption
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript.benchmark import RATE
from ualm_jax.evaluate.soundscript.hear import hear
from ualm_jax.evaluate.soundscript.plans import plan_of
from ualm_jax.generate.clip import Clip


def rich_caption_of(clip: Clip) -> str:
    """What is heard, without levels. Raises UserError where nothing is, or more than a rich caption can say."""
    wav = clip.samples if clip.rate == RATE else soxr.resample(clip.samples, clip.rate, RATE, quality="HQ")
    plan = plan_of(hear(np.asarray(wav, np.float32)))
    plan = None if plan is None else by_ear(plan)
    if plan is None:
        raise UserError("what is heard in the sound is no scene that SoundScript can say")
    return rich_caption(plan).write()
