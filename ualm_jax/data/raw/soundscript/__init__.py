"""Procedural captioned sounds whose content is known exactly, so that a program can check what a model made.

scene.py says what sounds, compose.py invents scenes, render.py makes samples of them, caption.py a sentence.
"""

from ualm_jax.data.raw.soundscript.caption import caption
from ualm_jax.data.raw.soundscript.compose import compose
from ualm_jax.data.raw.soundscript.render import TooLoud, level_db, render
from ualm_jax.data.raw.soundscript.scene import KINDS, Event, Scene
from ualm_jax.data.raw.soundscript.source import SoundScript

__all__ = ["KINDS", "Event", "Scene", "SoundScript", "TooLoud", "caption", "compose", "level_db", "render"]
