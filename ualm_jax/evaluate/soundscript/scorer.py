"""SoundScript's checker as a scorer of candidates (`generate/scorers.py`), and as a reward."""

import soxr

from ualm_jax.data.raw.soundscript.parse import plan_of_caption
from ualm_jax.data.raw.soundscript.plan import Plan
from ualm_jax.data.raw.soundscript.rich import plan_of_rich
from ualm_jax.evaluate.soundscript.benchmark import RATE
from ualm_jax.evaluate.soundscript.claims import claims_of
from ualm_jax.evaluate.soundscript.hear import hear
from ualm_jax.evaluate.soundscript.judge import Verdict, judge
from ualm_jax.generate.clip import Clip
from ualm_jax.tokens.rich_caption import BadRichCaption, parse


def share_of_right_tracks(prompt: str, clip: Clip) -> float:
    """Of the tracks (`judge.TRACKS`) on which the prompt asks for something, the share that is right: 0 to 1.

    prompt: a caption of SoundScript's language 2, or a rich caption of one. Raises ValueError for other words.
    """
    return verdict_of(prompt, clip).share


def verdict_of(prompt: str, clip: Clip) -> Verdict:
    """What is heard in a clip against what its prompt asks for; see `share_of_right_tracks`."""
    plan = _plan_of(prompt)
    wav = clip.samples if clip.rate == RATE else soxr.resample(clip.samples, clip.rate, RATE, quality="HQ")
    return judge(hear(wav), claims_of(plan))


def _plan_of(prompt: str) -> Plan:
    plan = plan_of_caption(prompt)
    if plan is None:
        try:
            plan = plan_of_rich(parse(prompt))
        except BadRichCaption:
            plan = None
    if plan is None:
        raise ValueError(f"{prompt!r} is no caption of SoundScript")
    return plan
