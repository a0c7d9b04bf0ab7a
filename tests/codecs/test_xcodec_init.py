"""Random X-codecs: the same everywhere, with varied codes and moderate sound."""

import hashlib

import jax
import numpy as np
from helpers.sounds import sounds

from ualm_jax.codecs.xcodec.init import init_random, tiny_config


def perplexity(codes: np.ndarray, size: int) -> float:
    share = np.bincount(codes, minlength=size) / len(codes)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def test_weights_are_the_same_bits_on_every_machine():
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(init_random(tiny_config(), seed=0)):
        digest.update(leaf.tobytes())
    assert digest.hexdigest()[:16] == "8701deddb9918d76"


def test_seeds_differ():
    first, second = (init_random(tiny_config(), seed)["fc"]["kernel"] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_sounds_use_many_codes_of_every_codebook(codec):
    codes = np.concatenate(codec.encode_batch(list(sounds().values())))
    assert all(perplexity(codes[:, q], 64) > 64 / 4 for q in range(8))


def test_different_sounds_have_different_codes(codec):
    melody, noise = (codec.encode(sounds()[name]) for name in ("melody", "noise"))
    assert (melody != noise).mean() > 0.9


def test_decoded_sound_is_moderate(codec):
    codes = np.random.default_rng(0).integers(0, 64, (200, 8)).astype(np.int32)
    wav = codec.decode(codes)
    assert 0.01 < wav.std() < 0.2 and np.abs(wav).max() < 1
