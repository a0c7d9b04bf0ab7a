"""Spectrograms of sounds beside what was made of them."""

import warnings

import numpy as np
from matplotlib.image import imread

from ualm_jax.evaluate.pictures import draw


def test_silence_and_the_shortest_sound_are_drawn_without_a_word(tmp_path):
    tone = 0.1 * np.sin(np.arange(4000) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path / "a.png", [{"short": tone[:5], "silent": 0 * tone, "tone": tone}], 16000)
    image = imread(tmp_path / "a.png")[30:-30, :, :3]
    silent, tone = (image[:, column : column + 100].max() for column in (300, 500))
    assert silent < 0.1 < 0.9 < tone
