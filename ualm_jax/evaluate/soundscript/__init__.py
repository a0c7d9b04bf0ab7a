"""SoundScript as a benchmark: what a waveform holds, and whether that is what was asked for.

segments.py finds where something sounds, layers.py parts two sounds at once, hear.py says what a sound is, pitch.py how
high; judge.py says whether it is right, claims.py what a caption asks for; benchmark.py holds the fixed lists, tally.py
counts, report.py writes the page.
"""

from ualm_jax.evaluate.soundscript.claims import claims_of
from ualm_jax.evaluate.soundscript.hear import hear
from ualm_jax.evaluate.soundscript.judge import TRACKS, Claim, Verdict, judge, judge_scene

__all__ = ["TRACKS", "Claim", "Verdict", "claims_of", "hear", "judge", "judge_scene"]
