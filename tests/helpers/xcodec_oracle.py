"""What `transformers` computes, and how far apart two encodings may be."""

import pathlib

import numpy as np
import torch
from transformers import XcodecModel

TIE = 1e-4  # relative gap of two squared distances that float32 may order either way


def load(directory: pathlib.Path) -> XcodecModel:
    return XcodecModel.from_pretrained(directory).eval()


@torch.inference_mode()
def encode(model: XcodecModel, wav: np.ndarray) -> np.ndarray:
    """[N] to [T, Q], as HF does."""
    return model.encode(torch.from_numpy(wav)[None, None]).audio_codes[0].T.numpy()


@torch.inference_mode()
def decode(model: XcodecModel, codes: np.ndarray) -> np.ndarray:
    """[T, Q] to [N], as HF does."""
    return model.decode(torch.from_numpy(codes.T.astype(np.int64))[None]).audio_values[0, 0].numpy()


@torch.inference_mode()
def vectors(model: XcodecModel, wav: np.ndarray) -> np.ndarray:
    """[N] to what HF quantises, [T, D]."""
    seen = []
    handle = model.fc.register_forward_hook(lambda module, inputs, output: seen.append(output))
    encode(model, wav)
    handle.remove()
    return seen[0][0].numpy()


def ties(model: XcodecModel, wav: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> int:
    """Number of frames that differ; each must differ first where two codewords are equally near."""
    differing = np.flatnonzero((ours != theirs).any(1))
    if not len(differing):
        return 0
    embeddings = vectors(model, wav).astype(np.float64)
    codebooks = [q.codebook.embed.double().numpy() for q in model.quantizer.quantizers]
    for frame in differing:
        stage = int(np.flatnonzero(ours[frame] != theirs[frame])[0])
        residual = embeddings[frame] - sum(codebooks[q][theirs[frame, q]] for q in range(stage))
        near = [((residual - codebooks[stage][c[frame, stage]]) ** 2).sum() for c in (ours, theirs)]
        assert abs(near[0] - near[1]) <= TIE * max(near), f"frame {frame}, codebook {stage}: distances {near}"
    return len(differing)
