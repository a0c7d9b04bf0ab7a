"""How converters tell how far they are."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and those of the whole."""


def silent(done: int, total: int) -> None:
    """Tells nobody."""
