"""Sounds that are thought about: planned in words, asked about, listened to, criticised and made again; and the data
that teaches it."""

from ualm_jax.reason.course import How, Wish
from ualm_jax.reason.events import Asked, Criticised, Ended, Event, Heard, Made, Planned, Version
from ualm_jax.reason.reasoning import Reasoning, run

__all__ = ["Asked", "Criticised", "Ended", "Event", "Heard", "How", "Made", "Planned", "Reasoning", "Version", "Wish"]
__all__ += ["run"]
