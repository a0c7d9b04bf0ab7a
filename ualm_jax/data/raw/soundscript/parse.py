"""A caption of language 2 back to its plan: the inverse of phrase.py, held-out ways of saying it included."""

import re

from ualm_jax.data.raw.soundscript.phrase import BEEP, INTROS, LAST, LINKS, NOUNS, TURNED, TURNED_FIRST, WHILE
from ualm_jax.data.raw.soundscript.plan import NOTES, Part, Plan

_COUNTS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
_TIMES = {"once": 1, "twice": 2, "three times": 3, "four times": 4}
_LEVELS = {"loud": "loud", "louder": "loud", "soft": "soft", "softer": "soft"}


def _plurals(name: str) -> tuple[str, str]:
    return name.format(s="", es=""), name.format(s="s", es="es")


_KINDS = {word: (kind, None) for kind, names in NOUNS.items() for name in names for word in _plurals(name)}
_KINDS |= {word: ("tone", "short") for word in _plurals(BEEP)}


def _one_of(words) -> str:
    """The longest first, so that "three times" is not taken for "three"."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


_PART = re.compile(
    rf"(?P<count>{_one_of(_COUNTS)}) (?:(?P<level>{_one_of(_LEVELS)}) )?(?:(?P<duration>short|long) )?"
    rf"(?:(?P<band>low|high) )?(?P<name>{_one_of(_KINDS)})(?: at (?P<note>{_one_of(NOTES)}))?"
    rf"(?: (?P<times>{_one_of(_TIMES)}))?",
    re.IGNORECASE,
)
# Between two parts. Where one begins with another, as " and then " does with none but ", then after a pause " does with
# ", then ", the longer one is meant.
_BETWEEN = {way.format(""): link for link, ways in LINKS.items() for way in ways} | {
    way.format(""): "then" for way in LAST
}
_SPLIT = re.compile(f"({_one_of(_BETWEEN)})")
_FRAMES = [(way, "while") for way in WHILE] + [(way, "then") for way in (*TURNED_FIRST, *TURNED)]


def plan_of_caption(caption: str) -> Plan | None:
    """What a caption such as "Two clicks, then a low tone." asks for; None where it is no caption of language 2."""
    text = caption.strip().removesuffix(".")
    for intro in INTROS:
        before = intro.format("")
        if text.lower().startswith(before) and (plan := _sentence(text[len(before) :])) is not None:
            return plan
    return None


def _sentence(text: str) -> Plan | None:
    for way, link in _FRAMES:
        first, second = (f"(?P<p{index}>.+?)" for index in (0, 1))
        found = re.fullmatch(way.format(first, second), text, re.IGNORECASE)
        parts = found and (_part(found["p0"]), _part(found["p1"]))
        if parts and None not in parts:
            return _plan(parts, (link,))
    pieces = _SPLIT.split(re.sub("^first ", "", text, flags=re.IGNORECASE))
    parts = tuple(map(_part, pieces[::2]))
    return None if None in parts else _plan(parts, tuple(_BETWEEN[words] for words in pieces[1::2]))


def _plan(parts: tuple[Part, ...], links: tuple[str, ...]) -> Plan | None:
    try:
        return Plan(parts, links)
    except ValueError:
        return None


def _part(text: str) -> Part | None:
    found = _PART.fullmatch(text)
    if found is None:
        return None
    words = {name: word.lower() for name, word in found.groupdict().items() if word is not None}
    kind, short = _KINDS[words["name"]]
    count = _COUNTS[words["count"]]
    if "times" in words:  # "a click twice"
        count = _TIMES[words["times"]] if count == 1 else 0
    duration = words.get("duration", short)
    if short and duration != short:  # "a long beep"
        return None
    pitch = words.get("band") or words.get("note", "").upper() or None
    level = _LEVELS.get(words.get("level"))
    try:
        return Part(kind, count, pitch, duration, level)
    except ValueError:
        return None
