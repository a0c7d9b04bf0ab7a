"""The sounds of a UALM, and of a codec that passes originals through."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import soxr
from jaxtyping import Float32

from ualm_jax.audio.io import read_audio
from ualm_jax.audio.write import write_sound
from ualm_jax.codecs.base import Codec
from ualm_jax.evaluate.soundscript.benchmark import RATE, Item
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.sound import caption_to_sound
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.tokenizer import Tokenizer

_CODEC_BATCH = 64


def from_model(
    model: UALM,
    codec: Codec,
    tokenizer: Tokenizer,
    params: SamplingParams,
    folder: pathlib.Path,
    items: Sequence[Item],
    batch_size: int = 32,
) -> Iterator[Float32[np.ndarray, "_"]]:
    """One sound for each caption, `batch_size` at once; a mesh must be set. Item i draws with params.seed + i.

    Sounds are kept in `folder` as ID.wav; those that are there are not made again.
    """
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        paths = [folder / f"{item.id}.wav" for item in batch]
        if not all(path.is_file() for path in paths):
            captions = [item.caption for item in batch]
            seeded = dataclasses.replace(params, seed=params.seed + start)
            for path, wav in zip(paths, caption_to_sound(model, codec, tokenizer, captions, seeded), strict=True):
                write_sound(path, wav, codec.sample_rate)
        for path in paths:
            yield read_audio(path, sample_rate=RATE)


def through_codec(codec: Codec, items: Sequence[Item]) -> Iterator[Float32[np.ndarray, "_"]]:
    """The original sounds, encoded and decoded."""
    for start in range(0, len(items), _CODEC_BATCH):
        originals = [_resample(item.sound(), RATE, codec.sample_rate) for item in items[start : start + _CODEC_BATCH]]
        whole = [wav[: len(wav) // codec.hop * codec.hop] for wav in originals]
        for wav in codec.decode_batch(codec.encode_batch(whole)):
            yield _resample(np.asarray(wav, np.float32), codec.sample_rate, RATE)


def _resample(wav: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    return wav if rate == wanted else soxr.resample(wav, rate, wanted, quality="HQ")
