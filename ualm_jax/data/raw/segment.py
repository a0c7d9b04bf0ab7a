"""Which part of a sound a record means, in the spellings of several data sets."""

import datetime
import decimal
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ualm_jax.data.raw.files import ROUNDING
from ualm_jax.data.raw.schema import Fields, Seconds
from ualm_jax.data.raw.sound_source import BadRecord

_STARTS, _ENDS = ("start", "start_time", "offset"), ("end", "end_time")
FIELDS = (*_STARTS, *_ENDS, "duration")
_SAY_IT = f"say that in seconds by {', '.join(FIELDS)}"
# Of names that may say which part of a sound is meant: parts of a name, and words that it is made of.
_PARTS = re.compile("start|begin|offset|onset|stop|finish|durat|timestamp|segment|interval|excerpt")
_WORDS = frozenset(
    "beg bgn end from to time times ts te t0 t1 st et ss xmin xmax length len range span window crop trim seek "
    "ms msec millis milliseconds sec secs seconds frames samples".split()
)
_TIME = re.compile(r"\s*\d[\d\s:.,–-]*(h|m|s|ms|sec|min)?\s*", re.IGNORECASE)
_NUMBERS = (int, float, decimal.Decimal, datetime.timedelta, datetime.time, datetime.datetime)


class Segment(Fields):
    """The fields that name a segment, all of them in seconds and none of them needed.

    start, start_time and offset mean the same, as do end and end_time. duration is the length of the segment where its
    beginning or its end is given, and that of the whole sound where neither is.
    """

    start: Seconds = None
    end: Seconds = None
    start_time: Seconds = None
    end_time: Seconds = None
    offset: Seconds = None
    duration: Seconds = None

    def given(self) -> list[str]:
        return [name for name in FIELDS if getattr(self, name) is not None]

    def bounds(self, where: str) -> tuple[float, float | None]:
        """Start, and end (None: that of the sound). Raises BadRecord where the fields contradict each other."""
        start, end = self._one(_STARTS, where), self._one(_ENDS, where)
        if end is None and start is not None and self.duration is not None:
            end = start + self.duration
        if end is not None and (start or 0.0) >= end:
            names = [name for name in self.given() if name in _STARTS] or ["start"]
            last = "'end'" if self.end is not None else "the end"
            raise BadRecord(f"{where}: {names[0]!r} must be before {last}, found {start or 0.0:g} and {end:g}")
        if end is not None and self.duration is not None and abs(end - (start or 0.0) - self.duration) > ROUNDING:
            raise BadRecord(
                f"{where}: 'duration' is {self.duration:g}, but from {start or 0.0:g} to {end:g} it is "
                f"{end - (start or 0.0):g}; the duration of the whole file has no place beside a segment"
            )
        return start or 0.0, end

    @property
    def whole(self) -> float | None:
        """How long the whole sound should be; None where nothing is said of it."""
        return self.duration if self.given() == ["duration"] else None

    def _one(self, names: tuple[str, ...], where: str) -> float | None:
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if len(set(given.values())) > 1:
            raise BadRecord(f"{where}: {' and '.join(map(repr, given))} mean the same, found {list(given.values())}")
        return next(iter(given.values()), None)


def refuse_unknown_segments(extra: Mapping[str, Any], where: str, advice: str = _SAY_IT) -> None:
    """Raise BadRecord for a field that is not understood and may say which part of a sound is meant."""
    for name, value in _flat(extra, ""):
        if may_name_segment(name) and _holds_time(value):
            field = name.split(".")[0]
            raise BadRecord(
                f"{where}: unknown field {name!r} may say which part of the sound is meant; {advice}, or declare it "
                f"meaningless with --ignore-fields {field}"
            )


def take_duration(record: dict[str, Any], where: str) -> float | None:
    """How long a sample's sound should be. Raises BadRecord for other fields that may name a part of it."""
    duration = record.get("duration")
    known = isinstance(duration, int | float) and not isinstance(duration, bool) and duration >= 0
    rest = {name: value for name, value in record.items() if name != "duration" or not known}
    refuse_unknown_segments(rest, where, "the sound of a sample is used whole, so cut it before")
    return float(duration) if known else None


def may_name_segment(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])", name)]
    return bool(_PARTS.search(name.lower())) or not _WORDS.isdisjoint(words)


def _flat(value: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        yield before + name, inner
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{before}{name}.")


def _holds_time(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_time, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_time, value))
    if isinstance(value, str):
        return _TIME.fullmatch(value) is not None
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)
