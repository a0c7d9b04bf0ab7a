"""SoundScript as a benchmark: what a waveform holds, and whether that is what was asked for.

segments.py finds where something sounds, hear.py says what it is, pitch.py how high, judge.py whether it is right.
"""

from ualm_jax.evaluate.soundscript.hear import hear
from ualm_jax.evaluate.soundscript.judge import TRACKS, Claim, Verdict, judge, judge_scene

__all__ = ["TRACKS", "Claim", "Verdict", "hear", "judge", "judge_scene"]
