"""Rich captions: a plan of a sound in text, or what was heard of one, that people and programs can read.

    Keywords: click, tone
    Layout: click, then tone.
    Description: click = two, loud; tone = low, long.

Keywords are the events, in the order in which they begin; Layout says in one sentence how they lie in time;
Description gives each event its attributes. This is the form of UALM-Reason (keywords, layout, description); the
paper leaves the markup open, and this one is ours.
"""

import dataclasses
import itertools
import re

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PARTS = ("Keywords", "Layout", "Description")
_HEADING = re.compile(r"^[\s>*#\-•\d.)]*\b(keywords?|layout|descriptions?)\b[*_\s]*[:=][*_]*\s*", re.I | re.M)
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+", re.M)
_RESERVED = re.compile(r"[,;=\n]|[:.]\s|[:.]$")


class BadRichCaption(ValueError):
    """The text is no rich caption; the message says which part is missing or wrong."""


@dataclasses.dataclass(frozen=True)
class RichCaption:
    """keywords: the events in order of time, each once. layout: a sentence without its full stop, empty for one event.
    description: (event, attributes) for events of keywords, in their order; those with no attributes may be left out.

    Words are in lower case, without outer spaces; an event or attribute holds no comma, semicolon, equals sign, and no
    colon or full stop at a word's end. Raises BadRichCaption otherwise.
    """

    keywords: tuple[str, ...]
    layout: str
    description: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self):
        if not self.keywords:
            raise BadRichCaption("Keywords is empty; expected the events, parted by commas")
        if len(set(self.keywords)) != len(self.keywords):
            raise BadRichCaption(f"Keywords names an event twice: {', '.join(self.keywords)}")
        described = [event for event, _ in self.description]
        for event in described:
            if event not in self.keywords:
                raise BadRichCaption(f"Description tells of {event!r}, which is not among the Keywords")
        if described != [event for event in self.keywords if event in described]:
            raise BadRichCaption("Description must tell of each event once, in the order of the Keywords")
        if len(self.keywords) > 1 and not self.layout:
            raise BadRichCaption("Layout is empty; expected a sentence with the order in time")
        for word in (*self.keywords, *itertools.chain.from_iterable(attributes for _, attributes in self.description)):
            if not word or word != _clean(word) or _RESERVED.search(word):
                raise BadRichCaption(
                    f"{word!r} is no event or attribute: lower case, no comma, semicolon or equals sign"
                )
        if any(not attributes for _, attributes in self.description):
            raise BadRichCaption("Description gives an event no attributes; leave it out")
        if self.layout != _clean(self.layout) or "\n" in self.layout or self.layout.endswith((".", ":")):
            raise BadRichCaption("Layout must be one line in lower case, without its full stop")

    def attributes(self, event: str) -> tuple[str, ...]:
        return dict(self.description).get(event, ())

    def write(self) -> str:
        """Three lines; `parse` gives back an equal RichCaption."""
        told = "; ".join(f"{event} = {', '.join(attributes)}" for event, attributes in self.description)
        layout = f"{self.layout}." if self.layout else f"{self.keywords[0]}."
        return f"Keywords: {', '.join(self.keywords)}\nLayout: {layout}\nDescription: {told or 'none'}."


def parse(text: str) -> RichCaption:
    """What a model wrote. Case, the order of the parts, bullets, markdown and spaces do not matter.

    Raises BadRichCaption, which names the part that is missing, doubled or cannot be read.
    """
    found: dict[str, str] = {}
    headings = list(_HEADING.finditer(text))
    for heading, following in itertools.zip_longest(headings, headings[1:]):
        name = next(part for part in _PARTS if part[0] == heading[1][0].upper())
        if name in found:
            raise BadRichCaption(f"{name} stands twice")
        found[name] = text[heading.end() : following.start() if following else len(text)]
    for name in _PARTS:
        if name not in found:
            raise BadRichCaption(f"the part {name}: is missing")
    keywords = tuple(dict.fromkeys(_items(found["Keywords"], ",;")))
    layout = _clean(" ".join(_BULLET.sub("", found["Layout"]).split())).rstrip(".: ")
    told: dict[str, tuple[str, ...]] = {}
    for item in _items(found["Description"], ";"):
        if item in ("none", ""):
            continue
        event, equals, attributes = (
            (side.strip() for side in re.split(r"(=|:)", item, maxsplit=1))
            if re.search(r"[=:]", item)
            else (item, "", "")
        )
        if not equals:
            raise BadRichCaption(f"Description: expected EVENT = ATTRIBUTES, found {item!r}")
        if event in told:
            raise BadRichCaption(f"Description tells of {event!r} twice")
        if attributes := tuple(_items(attributes, ",")):
            told[event] = attributes
    layout = "" if len(keywords) == 1 and layout == keywords[0] else layout
    caption = RichCaption(keywords, layout, tuple((event, told[event]) for event in keywords if event in told))
    unknown = [event for event in told if event not in keywords]
    if unknown:
        raise BadRichCaption(f"Description tells of {unknown[0]!r}, which is not among the Keywords")
    return caption


@dataclasses.dataclass(frozen=True)
class Difference:
    """What was heard that is not as planned.

    missing, extra: events of one side only. order: pairs (first, second) that were heard the other way round.
    counts: (event, planned, heard). attributes: (event, planned and not heard, heard and not planned).
    """

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    order: tuple[tuple[str, str], ...] = ()
    counts: tuple[tuple[str, int, int], ...] = ()
    attributes: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in dataclasses.fields(self))

    def sentence(self) -> str:
        """The difference as a person would say it."""
        said = [f"{_the(self.missing)} missing"] if self.missing else []
        said += [f"{_the(self.extra, 'was', 'were')} not asked for"] if self.extra else []
        said += [f"the {first} should come before the {second}" for first, second in self.order]
        said += [f"the {e} should sound {_times(wanted)}, not {_times(heard)}" for e, wanted, heard in self.counts]
        for event, wanted, heard in self.attributes:
            if wanted:
                instead = f", not {' and '.join(heard)}" if heard else ""
                said.append(f"the {event} should be {' and '.join(wanted)}{instead}")
            else:
                said.append(f"the {event} should not be {' and '.join(heard)}")
        if not said:
            return "It is as planned."
        text = "; ".join(said)
        return text[0].upper() + text[1:] + "."


def compare(plan: RichCaption, heard: RichCaption) -> Difference:
    """What of `heard` is not as in `plan`. Attributes that are number words are counts, 1 where none stands."""
    both = [event for event in plan.keywords if event in heard.keywords]
    place = {event: position for position, event in enumerate(heard.keywords)}
    counts, attributes = [], []
    for event in both:
        wanted, found = plan.attributes(event), heard.attributes(event)
        if _count(wanted) != _count(found):
            counts.append((event, _count(wanted), _count(found)))
        left = tuple(word for word in wanted if word not in found and word not in NUMBERS)
        right = tuple(word for word in found if word not in wanted and word not in NUMBERS)
        if left or right:
            attributes.append((event, left, right))
    return Difference(
        missing=tuple(event for event in plan.keywords if event not in heard.keywords),
        extra=tuple(event for event in heard.keywords if event not in plan.keywords),
        order=tuple((a, b) for a, b in itertools.pairwise(both) if place[a] > place[b]),
        counts=tuple(counts),
        attributes=tuple(attributes),
    )


def _items(text: str, separators: str) -> list[str]:
    """Entries between separators; every bullet and line begins one, too, where there are bullets."""
    if _BULLET.search(text):
        text = _BULLET.sub(separators[0], text)
    items = [_clean(item).rstrip(".").strip() for item in re.split(f"[{separators}]", text)]
    return [item for item in items if item]


def _clean(text: str) -> str:
    return " ".join(re.sub(r"[*_`]", "", text).lower().split())


def _count(attributes: tuple[str, ...]) -> int:
    return next((NUMBERS.index(word) for word in attributes if word in NUMBERS), 1)


def _the(events: tuple[str, ...], one: str = "is", many: str = "are") -> str:
    """ "the click and the tone are"."""
    names = [f"the {event}" for event in events]
    return f"{names[0]} {one}" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} {many}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{NUMBERS[count]} times")
