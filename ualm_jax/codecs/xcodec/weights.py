"""X-codec weights in HF's layout: `config.json` and `model.safetensors` in one directory."""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ualm_jax.codecs.xcodec.config import XCodecConfig, read_config, write_config
from ualm_jax.codecs.xcodec.specification import SEMANTIC_DECODER, UNUSED, Tensor, specification
from ualm_jax.errors import UserError

# How a weight-normed tensor is stored: (magnitude, direction), in old and new torch.
_WEIGHT_NORM = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def read_directory(path: str | Path, semantic_decoder: bool = False) -> tuple[XCodecConfig, dict]:
    """Read an HF directory. Returns the config and `params`, a tree of float32 numpy arrays.

    semantic_decoder: read that, too, which only training uses.

    Weights may be folded or weight-normed, and stored in float16; tensors that are not used are skipped. Raises
    UserError naming file and tensor when one is missing, unexpected, of the wrong shape or type, or not finite, or
    when a file is missing or broken.
    """
    path = Path(path)
    config = read_config(path / "config.json")
    file = path / "model.safetensors"
    if not file.is_file():
        raise UserError(f"{file}: expected the X-codec weights, found no such file")
    try:
        with safe_open(file, framework="numpy") as source:
            stored = {name: source.get_tensor(name) for name in source.keys() if not _skipped(name, semantic_decoder)}
    except (SafetensorError, TypeError) as error:
        raise UserError(
            f"{file}: expected whole safetensors of float32 or float16, found a file that cannot be read ({error})"
        ) from None
    return config, params_from_tensors(stored, config, str(file), semantic_decoder)


def params_from_tensors(
    tensors: Mapping[str, np.ndarray], config: XCodecConfig, source: str, semantic_decoder: bool = False
) -> dict:
    """`params` from tensors under HF's names; `source` names their origin in errors (as `read_directory`)."""
    unused = {name: tensor for name, tensor in tensors.items() if not _skipped(name, semantic_decoder)}

    def take(name: str) -> np.ndarray:
        tensor = unused.pop(name, None)
        if tensor is None:
            raise UserError(f"{source}: expected a tensor {name}, found none")
        if tensor.dtype not in (np.float32, np.float16):
            raise UserError(f"{source}: expected {name} in float32 or float16, found {tensor.dtype}")
        tensor = tensor.astype(np.float32)
        if not np.isfinite(tensor).all():
            raise UserError(f"{source}: expected finite numbers in {name}, found NaN or infinity")
        return tensor

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        stem = name.removesuffix("weight")
        for magnitude, direction in _WEIGHT_NORM:
            if name.endswith("weight") and name not in unused and stem + direction in unused:
                tensor = _fold(take(stem + magnitude), take(stem + direction), f"{source}: {name}")
                break
        else:
            tensor = take(name)
        if tensor.shape != shape:
            raise UserError(f"{source}: expected {name} with shape {shape}, found {tensor.shape}")
        return tensor

    def leaf(spec: Tensor) -> np.ndarray:
        parts = [read(name, spec.shape).transpose(spec.axes) for name in spec.names]
        return np.ascontiguousarray(parts[0]) if spec.count is None else np.stack(parts)

    params = jax.tree.map(leaf, specification(config, semantic_decoder))
    if unused:
        raise UserError(f"{source}: expected the tensors of an X-codec, found also {', '.join(sorted(unused))}")
    return params


def save_directory(params: dict, config: XCodecConfig, path: str | Path, dtype: type = np.float32) -> None:
    """Write `params` as an HF directory that `read_directory` reads, and `transformers` where codes are not factorised.

    dtype: float32, or float16 for half the size. What was rounded makes other codes here and there: it is another
    codec, with which data is to be prepared anew.

    It holds what encoding and decoding use, and the semantic decoder where `params` have one. What it lacks (`fc1`,
    `decoder_semantic`, codebook statistics), `XcodecModel.from_pretrained` reports as missing and leaves as it was
    initialised; encoding and decoding do not use it.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}

    def leaf(spec: Tensor, value) -> None:
        stack = np.asarray(value, np.float32)[None] if spec.count is None else np.asarray(value, np.float32)
        for name, part in zip(spec.names, stack, strict=True):
            tensors[name] = np.ascontiguousarray(part.transpose(np.argsort(spec.axes)))

    jax.tree.map(leaf, specification(config, "semantic_decoder" in params), params)
    # HF's model weight-norms this one convolution over its taps whatever the checkpoint holds, so store it so.
    name = "semantic_model.encoder.pos_conv_embed.conv.weight"
    kernel = tensors.pop(name)
    magnitude, direction = (name.removesuffix("weight") + part for part in _WEIGHT_NORM[1])
    tensors |= {direction: kernel, magnitude: _norm(kernel, (0, 1))}
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    write_config(config, path / "config.json")


def _skipped(name: str, semantic_decoder: bool) -> bool:
    patterns = UNUSED if semantic_decoder else UNUSED + SEMANTIC_DECODER
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _fold(magnitude: np.ndarray, direction: np.ndarray, where: str) -> np.ndarray:
    """g * v / |v|, the norm taken over the axes that g lacks (torch stores them with size 1)."""
    if magnitude.ndim != direction.ndim or any(
        g not in (1, v) for g, v in zip(magnitude.shape, direction.shape, strict=True)
    ):
        raise UserError(
            f"{where}: expected magnitudes that match directions {direction.shape}, found {magnitude.shape}"
        )
    axes = tuple(i for i, size in enumerate(magnitude.shape) if size == 1)
    return direction * (magnitude / _norm(direction, axes))


def _norm(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.sqrt((x.astype(np.float64) ** 2).sum(axes, keepdims=True)).astype(np.float32)
