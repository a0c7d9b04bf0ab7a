"""SoundScript: every sound is what its scene says, and a seed fixes both."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from ualm_jax.data.raw.soundscript import (
    KINDS,
    Event,
    Scene,
    SoundScript,
    TooLoud,
    compose,
    level_db,
    render,
)

RATE = 16000


def one(kind: str, duration: float = 0.5, loudness_db: float = -20.0, **fields) -> Scene:
    return Scene(1.0, (Event(kind, 0.25, duration, loudness_db, **fields),), noise_seed=3)


def example_of(kind: str) -> Scene:
    fields = {
        "tone": {"pitch_hz": 440.0},
        "buzz": {"pitch_hz": 220.0},
        "sweep": {"pitch_hz": 300.0, "end_pitch_hz": 900.0},
        "pluck": {"pitch_hz": 196.0},
        "noise": {"colour": "pink"},
    }
    return one(kind, duration=0.01 if kind == "click" else 0.5, **fields.get(kind, {}))


def spectrum(wav: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and power of a windowed segment, interpolated by zero padding to 0.25 Hz."""
    n = 4 * RATE
    return np.fft.rfftfreq(n, 1 / RATE), np.abs(np.fft.rfft(wav * np.hanning(len(wav)), n)) ** 2


# The source


def test_sounds_are_finite_below_full_scale_and_as_long_as_their_scene(captioned, scenes):
    for sound, scene in zip(captioned, scenes, strict=True):
        assert sound.wav.dtype == np.float32 and sound.sample_rate == RATE
        assert np.isfinite(sound.wav).all() and 0.001 < np.abs(sound.wav).max() < 1.0
        assert len(sound.wav) == round(scene.seconds * RATE)
        assert 1.0 <= scene.seconds <= 4.0
        assert all(event.end <= scene.seconds for event in scene.events)


def test_where_a_scene_would_exceed_full_scale_another_is_drawn():
    source = SoundScript(count=32081, seed=0, sample_rate=16000, min_seconds=8.0, max_seconds=12.0)
    first = compose(np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 32080]))), 8.0, 12.0)
    with pytest.raises(TooLoud):
        render(first, 16000)
    sound = source[32080]
    assert np.abs(sound.wav).max() < 1.0
    np.testing.assert_array_equal(sound.wav, render(Scene.from_dict(sound.scene), 16000))


def test_sounds_vary(captioned, scenes):
    events = [event for scene in scenes for event in scene.events]
    assert {event.kind for event in events} == set(KINDS) - {"clap"}  # which came later
    assert {event.colour for event in events} == {None, "white", "pink", "brown"}
    assert {len(scene.foreground) for scene in scenes} >= set(range(1, 8))
    assert 25 < sum(scene.backdrop is not None for scene in scenes) < 150
    assert len({sound.caption for sound in captioned}) > 470


# Scenes


def test_a_scene_survives_json(captioned, scenes):
    for sound, scene in zip(captioned, scenes, strict=True):
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene
        assert scene.to_dict() == sound.scene


def test_the_scene_alone_gives_the_sound_back(captioned, scenes):
    for i in range(0, 500, 25):
        np.testing.assert_array_equal(render(scenes[i], RATE), captioned[i].wav)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"kind": "moo"}, "kind is one of"),
        ({"start": -0.1}, "start >= 0"),
        ({"duration": 0.0}, "duration > 0"),
        ({"loudness_db": float("nan")}, "finite"),
        ({"pitch_hz": None}, "have a pitch"),
        ({"kind": "click"}, "have a pitch"),
        ({"kind": "sweep"}, "end pitch"),
        ({"colour": "white"}, "colour"),
        ({"kind": "noise", "pitch_hz": None, "colour": "blue"}, "colour"),
        ({"duration": 0.8}, "ends after"),
    ],
)
def test_an_impossible_scene_is_refused(event, reason):
    fields = {"kind": "tone", "start": 0.5, "duration": 0.3, "loudness_db": -20.0, "pitch_hz": 440.0, **event}
    with pytest.raises(ValueError, match=reason):
        Scene.from_dict({"seconds": 1.0, "noise_seed": 0, "events": [fields]})


def test_what_can_not_be_rendered_truly_is_refused():
    with pytest.raises(ValueError, match="too loud"):
        render(one("tone", loudness_db=0.0, pitch_hz=440.0), RATE)
    with pytest.raises(ValueError, match="can not be rendered"):
        render(one("tone", pitch_hz=7900.0), RATE)


# Rendering


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_silent_outside_its_interval_and_does_not_jump(kind):
    scene = example_of(kind)
    wav = render(scene, RATE)
    first, stop = (round(time * RATE) for time in (scene.events[0].start, scene.events[0].end))
    assert np.all(wav[:first] == 0) and np.all(wav[stop:] == 0)
    assert np.any(wav[first : first + 160] != 0)
    assert abs(wav[first]) < 1e-6 and abs(wav[stop - 1]) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loudness_db", [-40.0, -20.0])
def test_an_event_is_as_loud_as_the_scene_says(kind, loudness_db):
    event = dataclasses.replace(example_of(kind).events[0], loudness_db=loudness_db)
    wav = render(Scene(1.0, (event,), noise_seed=3), RATE)
    assert level_db(wav[round(event.start * RATE) : round(event.end * RATE)], RATE) == pytest.approx(
        loudness_db, abs=0.1
    )
    if kind == "tone":  # whose peak is known
        assert np.abs(wav).max() == pytest.approx(np.sqrt(2) * 10 ** (loudness_db / 20), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_band_limited(kind):
    wav = render(example_of(kind), 48000)
    power = np.abs(np.fft.rfft(wav * np.hanning(len(wav)))) ** 2
    above = power[np.fft.rfftfreq(len(wav), 1 / 48000) > 0.46 * 48000].sum()
    assert 10 * np.log10(above / power.sum() + 1e-20) < -40


@pytest.mark.parametrize("hz", [110.0, 261.63, 440.0, 1234.0, 1990.0])
@pytest.mark.parametrize("kind", ["tone", "buzz"])
def test_tones_and_buzzes_have_the_pitch_of_the_scene(kind, hz):
    frequency, power = spectrum(render(one(kind, pitch_hz=hz), RATE)[4000:12000])
    assert frequency[power.argmax()] == pytest.approx(hz, abs=0.5)


def test_tones_within_scenes_have_the_pitch_of_the_scene(scenes, captioned):
    checked = 0
    for scene, sound in zip(scenes, captioned, strict=True):
        for event in scene.foreground:
            if event.kind == "tone" and event.duration >= 0.2 and scene.backdrop is None:
                frequency, power = spectrum(sound.wav[round(event.start * RATE) : round(event.end * RATE)][: 4 * RATE])
                assert frequency[power.argmax()] == pytest.approx(event.pitch_hz, abs=1.0)
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("hz", [82.41, 110.0, 196.0, 261.63, 440.0, 659.26])
def test_a_plucked_string_is_in_tune(hz):
    """Within a quarter of a semitone: where its partials line up best."""
    wav = render(one("pluck", duration=0.7, pitch_hz=hz), RATE)[4000 : 4000 + 8000]
    frequency, power = spectrum(wav)
    candidates = hz * 2 ** (np.arange(-300, 301) / 1200)
    partials = np.arange(1, 6)
    scores = [sum(np.sqrt(np.interp(c * k, frequency, power)) for k in partials) for c in candidates]
    assert abs(1200 * np.log2(candidates[int(np.argmax(scores))] / hz)) < 25
    early, late = np.mean(wav[:1600] ** 2), np.mean(wav[-1600:] ** 2)
    assert late < early / 20


@pytest.mark.parametrize(("begin", "end"), [(300.0, 900.0), (2000.0, 500.0)])
def test_a_sweep_goes_in_a_straight_line_from_pitch_to_end_pitch(begin, end):
    wav = render(one("sweep", pitch_hz=begin, end_pitch_hz=end), RATE)[4000:12000]
    for middle in (0.1, 0.25, 0.4):
        at = round(middle * RATE)
        frequency, power = spectrum(wav[at - 400 : at + 400])
        assert frequency[power.argmax()] == pytest.approx(begin + (end - begin) * middle / 0.5, rel=0.03)


@pytest.mark.parametrize(("colour", "slope_db"), [("white", 0.0), ("pink", -3.0), ("brown", -6.0)])
def test_noise_falls_with_frequency_as_its_colour_says(colour, slope_db):
    scene = Scene(4.0, (Event("noise", 0.0, 4.0, -25.0, colour=colour),), noise_seed=1)
    frequency, power = spectrum(render(scene, RATE))
    octaves = [power[(frequency >= low) & (frequency < 2 * low)].mean() for low in (125, 250, 500, 1000, 2000)]
    steps = 10 * np.log10(np.array(octaves[1:]) / octaves[:-1])
    assert steps.mean() == pytest.approx(slope_db, abs=0.5)


def test_drums_are_low_middle_and_high():
    def centroid(kind):
        frequency, power = spectrum(render(example_of(kind), RATE)[4000:12000])
        return (frequency * power).sum() / power.sum()

    assert centroid("kick") < 150 < centroid("snare") < 5000 < centroid("hat")


def onsets(wav: np.ndarray, first: float, last: float) -> int:
    """How often the 20 ms RMS envelope rises from silence between two times."""
    power = np.square(wav[round(first * RATE) : round(last * RATE)])
    envelope = np.sqrt(power[: len(power) // 320 * 320].reshape(-1, 320).mean(axis=1))
    loud = envelope > 0.2 * envelope.max()
    return int(loud[0]) + int(np.sum(loud[1:] & ~loud[:-1]))


def test_as_many_clicks_sound_as_the_scene_lists(scenes, captioned):
    checked = 0
    for scene, sound in zip(scenes, captioned, strict=True):
        if scene.backdrop:
            continue
        for kind, group in itertools.groupby(scene.events, key=lambda event: event.kind):
            events = list(group)
            if kind in ("click", "hat"):
                assert onsets(sound.wav, events[0].start - 0.02, events[-1].end + 0.02) == len(events)
                checked += 1
    assert checked > 80


def test_every_sounding_moment_is_inside_an_event(scenes, captioned):
    for scene, sound in zip(scenes, captioned, strict=True):
        silent = np.ones(len(sound.wav), bool)
        for event in scene.events:
            inside = slice(round(event.start * RATE), round(event.end * RATE))
            silent[inside] = False
            assert np.any(sound.wav[inside] != 0)
        assert np.all(sound.wav[silent] == 0)


def test_the_louder_event_of_a_scene_measures_louder(scenes, captioned):
    compared = 0
    for scene, sound in zip(scenes, captioned, strict=True):
        if scene.backdrop:
            continue
        measured = [level_db(sound.wav[round(e.start * RATE) : round(e.end * RATE)], RATE) for e in scene.events]
        for (a, level_a), (b, level_b) in itertools.pairwise(zip(scene.events, measured, strict=True)):
            if a.loudness_db != b.loudness_db:
                assert (a.loudness_db > b.loudness_db) == (level_a > level_b)
                compared += 1
    assert compared > 100
