"""Scenes in stereo: events where their kind says, in a room, whatever the rate."""

import numpy as np
import pytest

from ualm_jax.data.raw.soundscript import Event, Scene, SoundScript2, StereoScript
from ualm_jax.data.raw.soundscript.stereo import render_stereo


def scene(kind, **event) -> Scene:
    return Scene(0.5, (Event(kind, 0.1, 0.2, -20.0, **event),), noise_seed=3)


@pytest.mark.parametrize(
    "one, right_louder_db",
    [
        (scene("hat"), 9.0),
        (scene("clap"), -7.0),
        (scene("kick"), 0.0),
        (scene("tone", pitch_hz=110.0), -11.0),
        (scene("tone", pitch_hz=1900.0), 11.0),
    ],
)
def test_kinds_and_pitches_have_their_places(one, right_louder_db):
    wav = render_stereo(one, 48000)
    assert wav.shape == (24000, 2) and wav.dtype == np.float32
    energy = np.sum(wav.astype(np.float64) ** 2, axis=0)
    assert 10 * np.log10(energy[1] / energy[0]) == pytest.approx(right_louder_db, abs=4.0)


def test_a_room_answers_after_the_sound_and_differently_to_each_ear():
    wav = render_stereo(scene("click"), 48000)
    assert np.abs(wav[: 48000 // 10]).max() < 1e-9
    tail = wav[48000 * 13 // 100 : 48000 * 18 // 100]
    assert np.all(np.std(tail, axis=0) > 1e-5)
    assert abs(np.corrcoef(tail.T)[0, 1]) < 0.5


def test_sounds_follow_from_seed_and_index_and_are_never_too_loud():
    source, again = (StereoScript(SoundScript2(count, 5, 48000)) for count in (6, 3))
    for index in range(3):
        wav = source[index].wav
        np.testing.assert_array_equal(wav, again[index].wav)
        assert np.abs(wav).max() < 1
        assert source[index].caption == source.script[index].caption
    other = StereoScript(SoundScript2(6, 6, 48000))
    assert source.fingerprint() != other.fingerprint() and len(source) == 6
