"""A reward that listens."""

import numpy as np


def loudness(prompt, clip):
    return float(np.abs(clip.samples).mean())
