"""A clip's codes belong to the clip: not to its batch, its padding, or chance.

The reference encodes zero-padded batches, in bf16, with dropout and time masking switched on (`reference defects`: the
codes of a training target depended on its batch mates and on luck).
"""

import numpy as np
import pytest
from helpers.sounds import sounds

from ualm_jax.codecs.base import Codec
from ualm_jax.codecs.xcodec import model, pieces
from ualm_jax.errors import UserError


@pytest.fixture(scope="module")
def clips():
    lengths = [80, 400, 5120, 5121, 9999, 16000, 16312, 20000]
    return [wav[:n] for wav, n in zip([*sounds().values()] * 2, lengths, strict=False)]


def test_it_is_a_codec(codec):
    assert isinstance(codec, Codec)
    assert (codec.sample_rate, codec.hop, codec.frame_rate) == (16000, 320, 50)
    assert codec.codebook_sizes == (64,) * 8


def test_a_clips_codes_do_not_depend_on_its_batch(codec, clips):
    alone = [codec.encode(wav) for wav in clips]
    for order in (slice(None), slice(None, None, -1), slice(2, 5)):
        for codes, expected in zip(codec.encode_batch(clips[order]), alone[order], strict=True):
            np.testing.assert_array_equal(codes, expected)


def test_clips_that_run_together_keep_their_codes(codec, clips, monkeypatch):
    alone = codec.encode_batch(clips)
    monkeypatch.setattr(type(codec), "_rows", lambda codec, frames: 3)  # as on a device that is no CPU
    for codes, expected in zip(codec.encode_batch(clips), alone, strict=True):
        np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(codec.encode(clips[3]), alone[3])


def test_a_clips_wave_does_not_depend_on_its_batch(codec, clips):
    codes = codec.encode_batch(clips)
    for wav, c in zip(codec.decode_batch(codes), codes, strict=True):
        np.testing.assert_array_equal(wav, codec.decode(c))
        assert wav.shape == (320 * len(c),)


def test_encoding_twice_gives_the_same_codes(codec, clips):
    np.testing.assert_array_equal(codec.encode(clips[5]), codec.encode(clips[5].copy()))


def test_padding_to_a_longer_program_changes_nothing(codec, clips, monkeypatch):
    codes, waves = codec.encode_batch(clips), codec.decode_batch(codec.encode_batch(clips))
    monkeypatch.setattr(model, "_bucket", lambda frames: 96)
    for wav, c, decoded in zip(clips, codes, waves, strict=True):
        np.testing.assert_array_equal(codec.encode(wav), c)
        np.testing.assert_allclose(codec.decode(c), decoded, rtol=0, atol=1e-5)


def test_program_lengths_waste_at_most_half_and_are_few():
    frames = range(1, 3001)
    buckets = [model._bucket(n) for n in frames]
    assert all(max(n, 256) <= b <= 1.5 * max(n, 256) for n, b in zip(frames, buckets, strict=True) if n > 128)
    assert buckets[:128] == [128] * 128
    assert len(set(buckets)) == 9, "up to a minute"
    assert all(b % pieces.PIECE == 0 for b in map(model._bucket, range(pieces.LONGEST + 1, 200_000, 997)))


def test_no_batch_and_no_frames_are_fine(codec):
    assert codec.encode_batch([]) == []
    assert codec.decode(np.zeros((0, 8), np.int32)).shape == (0,)


def test_what_cannot_be_encoded_is_refused(codec):
    with pytest.raises(UserError, match="found 79 samples"):
        codec.encode(np.zeros(79, np.float32))
    with pytest.raises(UserError, match="NaN"):
        codec.encode(np.full(4000, np.nan, np.float32))


def test_codes_that_do_not_exist_are_refused(codec):
    with pytest.raises(ValueError, match="0 to 63"):
        codec.decode(np.full((4, 8), 64, np.int32))
    with pytest.raises(ValueError, match="8 codebooks"):
        codec.decode(np.zeros((4, 7), np.int32))
