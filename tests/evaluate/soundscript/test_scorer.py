"""The checker as a scorer: the sound that a caption was written for is wholly right, others are less so."""

import numpy as np
import pytest
import soxr

from ualm_jax.data.raw.soundscript.rich import rich_caption
from ualm_jax.evaluate.soundscript.benchmark import RATE, items
from ualm_jax.evaluate.soundscript.scorer import share_of_right_tracks
from ualm_jax.generate.clip import Clip
from ualm_jax.generate.sampling import SamplingParams


def clip(wav, rate=RATE):
    return Clip(wav, rate, np.zeros((0, 8), np.int32), "", SamplingParams())


def test_originals_score_1_at_any_rate_and_others_less():
    chosen = items(("fresh",), 12)
    for item, other in zip(chosen, chosen[1:], strict=False):
        wav = item.sound()
        assert share_of_right_tracks(item.caption, clip(wav)) == 1
        assert share_of_right_tracks(item.caption, clip(other.sound())) < 1
    wav = soxr.resample(chosen[0].sound(), RATE, 48000, quality="HQ").astype(np.float32)
    assert share_of_right_tracks(chosen[0].caption, clip(wav, 48000)) == 1


def test_a_rich_caption_asks_for_the_same():
    item = items(("fresh",), 2)[0]
    assert share_of_right_tracks(rich_caption(item.plan).write(), clip(item.sound())) == 1


def test_silence_has_nothing_right_but_other_words_are_an_error():
    assert share_of_right_tracks("Two clicks, then a low tone.", clip(np.zeros(RATE, np.float32))) == 0
    for words in ("A dog barks.", "", "Keywords: dog\nLayout:\nDescription: dog = loud"):
        with pytest.raises(ValueError, match="is no caption of SoundScript"):
            share_of_right_tracks(words, clip(np.zeros(RATE, np.float32)))
