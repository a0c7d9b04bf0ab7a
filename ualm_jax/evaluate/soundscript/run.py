"""A run of the benchmark: sounds judged, and the measure that the judge itself is given first."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32

from ualm_jax.evaluate.soundscript.benchmark import LISTS, Item
from ualm_jax.evaluate.soundscript.claims import claims_of
from ualm_jax.evaluate.soundscript.hear import hear
from ualm_jax.evaluate.soundscript.judge import judge
from ualm_jax.evaluate.soundscript.report import Judged
from ualm_jax.evaluate.soundscript.tally import Tally, tally


def judge_sounds(items: Sequence[Item], wavs: Iterable[Float32[np.ndarray, "_"]]) -> list[Judged]:
    """16 kHz waveforms, one for each item in order."""
    judged = []
    for item, wav in zip(items, wavs, strict=True):
        heard = hear(wav)
        judged.append(Judged(item, heard, judge(heard, claims_of(item.plan)), wav))
    return judged


def originals(items: Sequence[Item]) -> list[Judged]:
    """The sounds that the captions were written for: what the judge is validated on."""
    return judge_sounds(items, (item.sound() for item in items))


def floor(judged: Sequence[Judged]) -> Tally:
    """The same sounds for the captions of others: each is judged by the next caption of its list."""
    verdicts = []
    for name in LISTS:
        group = [each for each in judged if each.item.list == name]
        shifted = group[1:] + group[:1]
        verdicts += [judge(a.heard, claims_of(b.item.plan)) for a, b in zip(group, shifted, strict=True)]
    return tally(verdicts)


def by_list(judged: Sequence[Judged]) -> dict[str, Tally]:
    """The tally of all captions, and of each list that some are of."""
    tables = {"all": tally([each.verdict for each in judged])}
    for name in LISTS:
        group = [each.verdict for each in judged if each.item.list == name]
        if group:
            tables[name] = tally(group)
    return tables
