"""Whether tokenizers, codecs and audio encoders of two folders are the same, whatever tool wrote them.

Weights only mean something with what they were trained with, so these are compared wherever weights meet data, a run or
other weights. A fingerprint is the SHA-256 of what decides ids, codes and features: the order of tensors in a file, the
files beside and tensors that only training uses have no part in it.
"""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from flax import nnx

from ualm_jax.buckets import in_bucket
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.codecs.xcodec.idle import without_idle
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import read_directory
from ualm_jax.errors import UserError
from ualm_jax.parallel.sharding import on_host
from ualm_jax.tokens.tokenizer import is_tokenizer, tokenizer_rules
from ualm_jax.weights.audio_tower import open_tower, read_encoder_config
from ualm_jax.weights.run_folder import parts_at, saved_steps
from ualm_jax.weights.shipped import located


def parts_of(path: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Folders of "tokenizer", "codec" and "encoder" in a dataset, a run, a converted checkpoint or a text model.

    Of a run that trains its encoder, the encoder of its newest step.
    """
    path = located(path)
    parts = parts_at(path, max(saved_steps(path), default=None))
    if not parts and not in_bucket(path) and is_tokenizer(path):
        return {"tokenizer": path}
    return parts


def fingerprints(parts: Mapping[str, pathlib.Path]) -> dict[str, str]:
    """Of each part, 64 hexadecimal digits. Raises UserError where one cannot be read."""
    return {name: _FINGERPRINTS[name](path) for name, path in parts.items()}


def check_together(one: Mapping[str, pathlib.Path], other: Mapping[str, pathlib.Path]) -> None:
    """Raises UserError where a part that both have is not the same in both."""
    for name in sorted(one.keys() & other.keys()):
        if one[name].resolve() == other[name].resolve():
            continue
        left, right = (fingerprints({name: parts[name]})[name] for parts in (one, other))
        if left != right:
            raise UserError(
                f"{one[name]} and {other[name]} are different {name}s ({left[:8]} and {right[:8]}): {_MEANS[name]}; "
                f"use weights and data that were made with the same."
            )


_MEANS = {
    "tokenizer": "the same ids stand for other texts",
    "codec": "the same codes stand for other sounds",
    "encoder": "the same sound has other features",
}


_LAYERS = "['decoder']['layers']"
_LAYER = re.compile(rf"(?<={re.escape(_LAYERS)})\[\d+\]")


def model_fingerprint(model: nnx.Module) -> str:
    """Of the parameters of a model in memory, as they are; the same with its layers apart. Every process of a run must
    call it."""
    leaves: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param)):
        leaves.setdefault(_LAYER.sub("", jax.tree_util.keystr(path)), []).append(leaf)
    names, apart = sorted(leaves), isinstance(model.decoder.layers, nnx.List)

    def digest(name: str, arrays: list[np.ndarray]) -> str:
        return _stack(arrays) if apart and name.startswith(_LAYERS) else _arrays("", {"": lambda: arrays[0]})

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(digest, names, ([on_host(leaf) for leaf in leaves[name]] for name in names))
        lines = (f"{name} {digest}\n" for name, digest in zip(names, digests, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def codec_fingerprint(codec: XCodec | Enhancer) -> str:
    """The fingerprint of a codec or enhancer in memory, equal to that of its folder."""
    leaves = jax.tree_util.tree_leaves_with_path(codec.params)
    return _arrays(repr(codec.config), {jax.tree_util.keystr(key): lambda value=value: value for key, value in leaves})


def _tokenizer(path: pathlib.Path) -> str:
    return hashlib.sha256(json.dumps(tokenizer_rules(path), sort_keys=True).encode()).hexdigest()


def _codec(path: pathlib.Path) -> str:
    config, params = read_directory(path)
    leaves = jax.tree_util.tree_leaves_with_path(without_idle(params))
    return _arrays(repr(config), {jax.tree_util.keystr(key): lambda value=value: value for key, value in leaves})


def _encoder(path: pathlib.Path) -> str:
    files = open_tower(path)
    readers = {name: lambda name=name: files.read(name) for name in files.tensors}
    return _arrays(repr(read_encoder_config(path / "config.json")), readers)


def _arrays(config: str, arrays: Mapping[str, Callable[[], Any]]) -> str:
    digest = hashlib.sha256(config.encode())
    for name, read in sorted(arrays.items()):
        value = np.ascontiguousarray(read())
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _stack(arrays: list[np.ndarray]) -> str:
    """As `_arrays` of one array that has these for rows."""
    digest, first = hashlib.sha256(), arrays[0]
    digest.update(f" {first.dtype} {(len(arrays), *first.shape)}".encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


_FINGERPRINTS: dict[str, Callable[[pathlib.Path], str]] = {
    "tokenizer": _tokenizer,
    "codec": _codec,
    "encoder": _encoder,
}
