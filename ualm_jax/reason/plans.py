"""Rich captions as a model or a person writes them: read, checked, and reduced to what can be heard."""

import dataclasses
import re

from ualm_jax.data.raw.soundscript.plan import NOTES
from ualm_jax.data.raw.soundscript.questions import is_right
from ualm_jax.tokens.rich_caption import NUMBERS, BadRichCaption, Difference, RichCaption, parse

_LEVELS = ("loud", "soft")
_ONE_OF = (NUMBERS, _LEVELS, ("low", "high", *(f"at {note.lower()}" for note in NOTES)), ("short", "medium", "long"))
_AT_ONCE = ("during", "while", "over", "together", "same time")


def read(text: str) -> tuple[RichCaption | None, str | None]:
    """The rich caption, or None and why there is none."""
    try:
        return parse(text), None
    except BadRichCaption as error:
        return None, str(error)


def contradictions(caption: RichCaption) -> list[str]:
    """Contradictions, in words: two numbers, levels, pitches or durations of an event, or a layout whose order is not
    that of the keywords."""
    found = []
    for event, attributes in caption.description:
        for words in _ONE_OF:
            several = [word for word in attributes if word in words]
            if len(several) > 1:
                found.append(f"{event} can not be {' and '.join(several)} at once")
    if " then " in f" {caption.layout} " and not any(word in caption.layout for word in _AT_ONCE):
        # The longest first: "rising tone" names no "tone".
        names = "|".join(map(re.escape, sorted(caption.keywords, key=len, reverse=True)))
        told = list(dict.fromkeys(re.findall(rf"(?<!\w)(?:{names})", caption.layout)))
        named = [event for event in caption.keywords if event in told]
        if named != told:
            found.append(f"Keywords has the order {', '.join(named)}, Layout another one")
    return found


def audible(caption: RichCaption) -> RichCaption:
    """The caption without levels, which a listener can not name; what is heard is compared with this."""
    told = ((event, tuple(word for word in words if word not in _LEVELS)) for event, words in caption.description)
    return dataclasses.replace(caption, description=tuple((event, words) for event, words in told if words))


def found_nothing(critique: str) -> bool:
    """Whether a critique says that all is as planned."""
    return is_right(critique, Difference().sentence())


def faults(difference: Difference) -> int:
    """The number of faults that the difference names."""
    return sum(len(getattr(difference, field.name)) for field in dataclasses.fields(difference))
