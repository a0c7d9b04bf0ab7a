"""CLAP as the judge of sounds: how near a sound is to its caption in a space that both were embedded in."""

import os
import pathlib

import numpy as np
import soxr

from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip


class Clap:
    """A scorer of clips (generate/scorers.py): the cosine of the embeddings of caption and sound, -1 to 1.

    path: a folder with a ClapModel and its processor as Hugging Face stores them; nothing is fetched. It runs in
    PyTorch, on the CPU. What CLAP cuts out of a clip longer than its window is drawn from seed 0, so that the same
    clip always has the same score. Raises UserError where PyTorch or the model is missing.
    """

    def __init__(self, path: str | os.PathLike):
        folder = pathlib.Path(path)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"clap:{folder}: there is no config.json; name a folder with a ClapModel and its processor."
            )
        try:
            import torch
        except ModuleNotFoundError:
            raise UserError("clap needs PyTorch: pip install '.[torch]'.") from None
        from transformers import ClapModel, ClapProcessor

        try:
            self._processor = ClapProcessor.from_pretrained(folder, local_files_only=True)
            self._model = ClapModel.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            raise UserError(f"clap:{folder} is no ClapModel with its processor ({error}).") from error
        self._torch = torch

    def __call__(self, prompt: str, clip: Clip) -> float:
        torch, rate = self._torch, self._processor.feature_extractor.sampling_rate
        wav = clip.samples if clip.rate == rate else soxr.resample(clip.samples, clip.rate, rate, quality="HQ")
        before = np.random.get_state()
        np.random.seed(0)  # the feature extractor draws from the global generator
        try:
            inputs = self._processor(text=[prompt], audio=[wav], sampling_rate=rate, return_tensors="pt", padding=True)
        finally:
            np.random.set_state(before)
        with torch.inference_mode():
            found = self._model(**inputs)
        return float(torch.nn.functional.cosine_similarity(found.text_embeds, found.audio_embeds)[0])
