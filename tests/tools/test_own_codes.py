"""A decoder learns of a model's own codes: what the model meant by them, and that nothing but the decoder moves."""

import dataclasses
import types

import numpy as np
import pytest
from helpers.tools import tool

from ualm_jax.audio.write import write_sound
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import read_directory
from ualm_jax.data.raw.soundscript import SoundScript2, render
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript import hear
from ualm_jax.evaluate.soundscript.claims import claims_of
from ualm_jax.weights.shipped import located


def asked(*kinds: str, note: bool):
    """The first script of these kinds of event whose caption says a note of the first event, or leaves it open."""
    source = SoundScript2(10_000, 3)
    for script in map(source.script, range(10_000)):
        claims = claims_of(script.plan)
        said = claims[0].pitch_hz is not None and claims[0].pitch_hz[0] == claims[0].pitch_hz[1]
        if tuple(event.kind for event in script.scene.events) == kinds and said == note:
            return script.scene.events, claims
    raise AssertionError("no such script")


def test_a_scene_that_was_obeyed_is_what_was_meant():
    own, (events, claims) = tool("own_codes"), asked("buzz", "click", note=True)
    assert own.meant(events, claims, events) == events
    late = [dataclasses.replace(event, start=event.start + 0.03) for event in events]
    assert own.meant(events, claims, late) == tuple(late)
    # What it sounds like is what shall be mended, so the kind heard does not count.
    mistaken = (dataclasses.replace(events[0], kind="tone"), events[1])
    assert own.meant(events, claims, mistaken) == events


def test_what_was_not_obeyed_in_number_time_or_note_was_meant_otherwise():
    own, (events, claims) = tool("own_codes"), asked("buzz", "click", note=True)
    assert own.meant(events, claims, events[:1]) is None
    assert own.meant(events, claims, [dataclasses.replace(event, start=event.start + 0.1) for event in events]) is None
    higher = (dataclasses.replace(events[0], pitch_hz=events[0].pitch_hz * 2 ** (1 / 12)), events[1])
    assert own.meant(events, claims, higher) is None
    assert own.meant(events, claims, (dataclasses.replace(events[1], start=events[0].start), events[1])) is None


def test_a_pitch_that_the_caption_leaves_open_is_the_note_next_to_what_was_heard():
    own, (events, claims) = tool("own_codes"), asked("tone", "click", note=False)
    heard = (dataclasses.replace(events[0], pitch_hz=443.0), events[1])
    assert own.meant(events, claims, heard)[0].pitch_hz == pytest.approx(440.0)
    between = (dataclasses.replace(events[0], pitch_hz=440 * 2 ** (0.45 / 12)), events[1])
    assert own.meant(events, claims, between)[0].pitch_hz == pytest.approx(440.0)


def test_captions_are_rich_in_what_is_hard():
    own, source = tool("own_codes"), SoundScript2(2**31, 0)
    events = [source.script(index).scene.events for index in own._rich(source, 20)]
    assert len(events) == 20
    assert sum(any(event.kind == "buzz" and event.pitch_hz > 380 for event in scene) for scene in events) >= 9
    assert sum(any(event.kind == "pluck" for event in scene) for scene in events) >= 4


class Obedient:
    """Makes the scene of each caption, and of every second one silence. Its codes say which caption they are of."""

    def __init__(self, source: SoundScript2, indices: list[int]):
        self.scenes = {source.script(index).caption: (index, source.script(index).scene) for index in indices}

    def generate(self, captions, seed, temperature, cfg_scale):
        for caption in captions:
            index, scene = self.scenes[caption]
            wav = render(scene, 16000) * (index % 2)
            yield types.SimpleNamespace(samples=wav, rate=16000, codes=np.full((len(wav) // 320, 8), index))


def test_each_code_is_paired_with_the_scene_that_it_was_made_for_and_silence_with_none():
    own, source = tool("own_codes"), SoundScript2(2**31, 0)
    indices = own._rich(source, 8)
    pairs = list(own.own_pairs(Obedient(source, indices), 8))
    assert sorted(int(codes[0, 0]) for codes, _ in pairs) == sorted(index for index in indices if index % 2)
    for codes, wav in pairs:
        scene = source.script(int(codes[0, 0])).scene
        assert [event.kind for event in hear(wav)] == [event.kind for event in hear(render(scene, 16000))]
        assert len(codes) == len(wav) // 320


def test_sounds_too_short_to_learn_from_are_one_sentence(tmp_path):
    own = tool("own_codes")
    short = [(np.zeros((3, 8), np.int32), np.zeros(960, np.float32))]
    with pytest.raises(UserError, match="no sound of 24 frames to learn from"):
        own.train(located("soundscript") / "codec", [short, short], 2, tmp_path / "out")


@pytest.mark.slow
def test_the_decoder_alone_learns_and_every_sound_keeps_its_codes(tmp_path):
    own, folder = tool("own_codes"), located("soundscript") / "codec"
    source = SoundScript2(4, 9)
    for index in range(4):
        write_sound(tmp_path / f"{index}.wav", source[index].wav, source.sample_rate)
    codec = XCodec.from_directory(folder)
    pairs = list(own.true_pairs(codec, sorted(tmp_path.glob("*.wav"))))
    own.train(folder, [pairs, pairs], 4, tmp_path / "out")
    learnt = XCodec.from_directory(tmp_path / "out")
    for codes, wav in pairs:
        np.testing.assert_array_equal(learnt.encode(wav), codes)
        assert len(learnt.decode(codes)) == len(wav)
    assert np.abs(learnt.decode(pairs[0][0]) - codec.decode(pairs[0][0])).max() > 1e-4
    before, after = (read_directory(each)[1]["codebooks"] for each in (folder, tmp_path / "out"))
    np.testing.assert_array_equal(before, after)
