"""What the steps of some segments must compute, found out before anything is compiled."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ualm_jax.errors import UserError
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.step import Work


def work_of(asked: Iterable[tuple[str, SamplingParams, bool]]) -> Work:
    """All that segments ask for: of each its modality ("auto": any), its settings, and whether log-probabilities are
    wanted."""
    return Work(*(any(flags) for flags in zip(*(_work(*each) for each in asked), strict=True)))


def to_names(work: Work) -> list[str]:
    """Ready for JSON."""
    return [name for name, wanted in work._asdict().items() if wanted]


def from_names(names: Any) -> Work:
    """What `to_names` has written. Raises UserError for what it can not have."""
    if not isinstance(names, list) or not all(name in Work._fields for name in names):
        raise UserError(f"The record of how a sound was made is damaged: of work it says {names!r}.")
    return Work(**{name: name in names for name in Work._fields})


def beyond(work: Work, limit: Work) -> list[str]:
    """What `work` holds and `limit` does not, by name."""
    return [name for name, wanted in work._asdict().items() if wanted and not getattr(limit, name)]


def _work(modality: str, params: SamplingParams, scored: bool) -> Work:
    audio, text = modality != "text", modality in ("text", "auto")

    def used(name: str) -> np.ndarray:
        own = np.atleast_1d(getattr(params, name)) if audio else []
        return np.append(own, np.atleast_1d(getattr(params, f"text_{name}")) if text else [])

    return Work(
        audio=audio,
        text=text,
        guided=audio and params.guided,
        sampled=bool(np.any(used("temperature") > 0)),
        filtered=bool(np.any(used("top_p") < 1) or np.any(used("min_p") > 0)),
        scored=scored,
    )
