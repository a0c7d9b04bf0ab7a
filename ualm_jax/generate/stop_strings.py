"""Strings that end a text."""

import bisect
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from ualm_jax.tokens.tokenizer import Tokenizer


def strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """One string, several, or none, as several."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def until(tokenizer: Tokenizer, stop: Sequence[str]) -> Callable[[Int[np.ndarray, " n"]], int | None] | None:
    """What `Request.until` asks: how many of the ids to keep, once they spell one of the strings.

    They are kept up to the token that completes it, so that `before` finds it. None where there are no strings.
    """
    if not stop:
        return None

    def kept(ids: Int[np.ndarray, " n"]) -> int | None:
        ids = ids.tolist()

        def holds(count: int) -> bool:
            return _first(tokenizer.decode(ids[:count]), stop) is not None

        return bisect.bisect_left(range(len(ids)), True, key=holds) if holds(len(ids)) else None

    return kept


def before(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the strings, all of it where there is none."""
    return text[: _first(text, stop)]


def _first(text: str, stop: Sequence[str]) -> int | None:
    return min((place for place in map(text.find, stop) if place >= 0), default=None)
