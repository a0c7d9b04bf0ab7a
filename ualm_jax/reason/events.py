"""What happens while a sound is thought about, in the order in which it happens."""

import dataclasses

from ualm_jax.generate.clip import Clip
from ualm_jax.generate.scorers import Score
from ualm_jax.tokens.rich_caption import RichCaption


@dataclasses.dataclass(frozen=True, eq=False)
class Version:
    """A sound that was made. name: "v1", "v2", ... score: of the judge, where there is one. heard: the rich caption
    that was written of it. critique: what was said of it. faults: in how many things heard and plan differ."""

    name: str
    clip: Clip
    score: Score | None = None
    heard: str | None = None
    critique: str | None = None
    faults: int | None = None


@dataclasses.dataclass(frozen=True)
class Asked:
    """The model asks; it needs an answer (`Reasoning.reply`). number: of the question, from 1."""

    text: str
    number: int


@dataclasses.dataclass(frozen=True)
class Planned:
    """The rich caption that the sound is made from. caption: None where `text` is none. problem: why it can not be
    used."""

    text: str
    caption: RichCaption | None
    problem: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    version: Version


@dataclasses.dataclass(frozen=True)
class Heard:
    """A rich caption of what is heard in a version, by its name. problem: as of Planned."""

    version: str
    text: str
    caption: RichCaption | None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Criticised:
    """What is wrong with a version, by its name. problem: why it can not be used."""

    version: str
    text: str
    problem: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Ended:
    """The last event.

    reason: why no further version is made (course.REASONS). problem: what went wrong, None where nothing did.
    plan: as it stood in the end, even where it could not be used. talk: questions of the model and their answers.
    best: the best of the versions, None where none was made. steps: decode steps, of texts and sounds, that all of it
    took.
    """

    prompt: str
    reason: str
    problem: str | None
    plan: str | None
    talk: tuple[tuple[str, str], ...]
    versions: tuple[Version, ...]
    best: Version | None
    steps: int


Event = Asked | Planned | Made | Heard | Criticised | Ended
