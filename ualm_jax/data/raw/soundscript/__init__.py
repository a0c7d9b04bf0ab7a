"""Procedural captioned sounds whose content is known exactly, so that a program can check what a model made.

scene.py says what sounds, render.py makes samples of it. Language 1: compose.py invents scenes, caption.py a sentence
that tells some of it, source.py the supply. Language 2: plan.py says in words what is to sound, invent.py draws plans
and makes scenes of them, phrase.py sentences that tell all of it, source2.py the supply; stereo.py
gives every event a place in a room. conversations.py asks,
answers, plans and criticises.
"""

from ualm_jax.data.raw.soundscript.caption import caption
from ualm_jax.data.raw.soundscript.compose import compose
from ualm_jax.data.raw.soundscript.plan import Part, Plan
from ualm_jax.data.raw.soundscript.render import TooLoud, level_db, render
from ualm_jax.data.raw.soundscript.scene import KINDS, Event, Scene
from ualm_jax.data.raw.soundscript.source import SoundScript
from ualm_jax.data.raw.soundscript.source2 import SoundScript2
from ualm_jax.data.raw.soundscript.stereo import StereoScript

__all__ = [
    "KINDS",
    "Event",
    "Part",
    "Plan",
    "Scene",
    "SoundScript",
    "SoundScript2",
    "StereoScript",
    "TooLoud",
    "caption",
    "compose",
    "level_db",
    "render",
]
