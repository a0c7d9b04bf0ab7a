"""Audiobox-Aesthetics as the judge of sounds: how well they are made and enjoyed, whatever their caption says."""

import os
import pathlib

import numpy as np
import soxr

from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip

AXES = ("CE", "CU", "PC", "PQ")
"""Content enjoyment and usefulness, production complexity and quality, each from 1 to 10."""

_RATE = 16000
_WINDOW = 10 * _RATE  # samples that the model hears at a time


class Audiobox:
    """A scorer of clips (generate/scorers.py): the mean of `axes`, which is UALM's figure.

    path: a folder with the model as Hugging Face stores facebook/audiobox-aesthetics; nothing is fetched. It runs in
    PyTorch, on the CPU, by the package `audiobox_aesthetics` (Tjandra et al. 2025, "Meta Audiobox Aesthetics").
    Raises UserError where the package or the model is missing.
    """

    def __init__(self, path: str | os.PathLike):
        folder = pathlib.Path(path)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"audiobox:{folder}: there is no config.json; name a folder with the files of "
                "facebook/audiobox-aesthetics."
            )
        try:
            import torch
            from audiobox_aesthetics.model.aes import AesMultiOutput
        except ModuleNotFoundError as error:
            raise UserError(
                f"audiobox needs {error.name}: pip install '.[torch]' huggingface_hub, and pip install --no-deps "
                "audiobox_aesthetics."
            ) from None
        try:
            self._model = AesMultiOutput.from_pretrained(str(folder), local_files_only=True).eval()
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"audiobox:{folder} is no model of audiobox_aesthetics ({error}).") from error
        self._torch = torch

    def __call__(self, prompt: str, clip: Clip) -> float:
        return float(np.mean(list(self.axes(clip).values())))

    def axes(self, clip: Clip) -> dict[str, float]:
        """By the names of AXES: means over windows of 10 s, by how much of each is sound."""
        torch = self._torch
        wav = clip.samples if clip.rate == _RATE else soxr.resample(clip.samples, clip.rate, _RATE, quality="HQ")
        lengths = np.array([min(len(wav) - start, _WINDOW) for start in range(0, len(wav), _WINDOW)])
        windows = np.pad(wav, (0, len(lengths) * _WINDOW - len(wav))).reshape(len(lengths), 1, _WINDOW)
        heard = np.arange(_WINDOW) < lengths[:, None, None]
        with torch.inference_mode():
            found = self._model({"wav": torch.from_numpy(windows), "mask": torch.from_numpy(heard)})
        scales = self._model.target_transform
        return {
            axis: float(np.average(found[axis].numpy().reshape(-1), weights=lengths)) * scales[axis]["std"]
            + scales[axis]["mean"]
            for axis in AXES
        }
