"""Spectrograms of sounds beside what was made of them."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

_WINDOW = 0.021  # seconds
_SHOWN_DB = (-120, -40)  # of power for each kHz
_SILENCE = 1e-7  # of full scale, below what is shown: the logarithm of a pause is finite


def draw(path: str | os.PathLike, sounds: Sequence[Mapping[str, Float[np.ndarray, "_"]]], sample_rate: int) -> None:
    """A PNG with a line for each sound, and a column for each name, which all sounds have."""
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    size = 1 << round(np.log2(_WINDOW * sample_rate))
    figure = Figure(figsize=(9, 2.4 * len(sounds)), layout="constrained")
    axes = figure.subplots(len(sounds), len(sounds[0]), sharey=True, squeeze=False)
    for line, shown in zip(axes, sounds, strict=True):
        for place, (name, wav) in zip(line, shown.items(), strict=True):
            wav = np.pad(wav, (0, max(2 * size - len(wav), 0)))
            hiss = _SILENCE * np.random.default_rng(0).standard_normal(len(wav))
            place.specgram(
                wav + hiss,
                NFFT=size,
                noverlap=3 * size // 4,
                Fs=sample_rate / 1000,
                vmin=_SHOWN_DB[0],
                vmax=_SHOWN_DB[1],
                cmap="magma",
            )
            place.set_title(name, fontsize=8)
            place.tick_params(labelsize=6)
    figure.supxlabel("milliseconds", fontsize=8)
    figure.supylabel("kHz", fontsize=8)
    figure.savefig(path, format="png", dpi=70)
