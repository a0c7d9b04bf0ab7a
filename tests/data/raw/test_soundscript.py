"""SoundScript: every sound is what its scene says, every caption is true of it, and a seed fixes both."""

import dataclasses
import hashlib
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from ualm_jax.data.raw.sound_source import CaptionedSound, SoundSource
from ualm_jax.data.raw.soundscript import (
    KINDS,
    Event,
    Scene,
    SoundScript,
    TooLoud,
    caption,
    compose,
    level_db,
    render,
)
from ualm_jax.errors import UserError

RATE = 16000
SOURCE = SoundScript(count=500, seed=7)


@pytest.fixture(scope="module")
def sounds() -> list[CaptionedSound]:
    return list(SOURCE)


@pytest.fixture(scope="module")
def scenes(sounds) -> list[Scene]:
    return [Scene.from_dict(sound.scene) for sound in sounds]


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


def test_it_is_a_sound_source(sounds):
    assert isinstance(SOURCE, SoundSource)
    assert len(SOURCE) == len(sounds) == 500
    assert len({sound.id for sound in sounds}) == 500
    with pytest.raises(IndexError):
        SOURCE[500]
    with pytest.raises(IndexError):
        SOURCE[-1]


def test_a_sound_is_the_same_in_any_process(sounds):
    program = (
        "import hashlib; from ualm_jax.data.raw.soundscript import SoundScript; s = SoundScript(500, 7)\n"
        "for i in (499, 3, 41): print(s[i].caption, hashlib.sha256(s[i].wav.tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    here = [f"{sounds[i].caption} {hashlib.sha256(sounds[i].wav.tobytes()).hexdigest()}" for i in (499, 3, 41)]
    assert printed.splitlines() == here


def test_a_sound_depends_on_seed_and_index_alone(sounds):
    longer = SoundScript(count=10_000, seed=7)
    assert longer[123].caption == sounds[123].caption
    np.testing.assert_array_equal(longer[123].wav, sounds[123].wav)
    other = SoundScript(count=500, seed=8)
    assert sum(other[i].caption == sounds[i].caption for i in range(50)) < 5


def test_the_fingerprint_is_json_and_tells_sources_apart():
    settings = [
        {},
        {"seed": 8},
        {"count": 3},
        {"sample_rate": 24000},
        {"min_seconds": 2.0},
        {"max_seconds": 5.0},
    ]
    prints = [json.dumps(SoundScript(**{"count": 500, "seed": 7, **s}).fingerprint()) for s in settings]
    assert len(set(prints)) == len(settings)
    assert prints[0] == json.dumps(SOURCE.fingerprint())


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 0},
        {"seed": -1},
        {"sample_rate": 8000},
        {"min_seconds": 0.2},
        {"min_seconds": 3.0, "max_seconds": 2.0},
    ],
)
def test_settings_no_sound_can_meet_are_refused(settings):
    with pytest.raises(UserError, match=f"soundscript: .*{next(iter(settings))}"):
        SoundScript(**{"count": 5, "seed": 0, **settings})


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.5, 1.0), (9.0, 10.0)])
def test_short_and_long_sounds_keep_to_their_limits(low, high):
    for sound in SoundScript(count=40, seed=0, min_seconds=low, max_seconds=high):
        assert low - 0.005 <= len(sound.wav) / RATE <= high + 0.005


def test_sounds_are_finite_below_full_scale_and_as_long_as_their_scene(sounds, scenes):
    for sound, scene in zip(sounds, scenes, strict=True):
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


def test_sounds_vary(sounds, scenes):
    events = [event for scene in scenes for event in scene.events]
    assert {event.kind for event in events} == set(KINDS) - {"clap"}  # which came later
    assert {event.colour for event in events} == {None, "white", "pink", "brown"}
    assert {len(scene.foreground) for scene in scenes} >= set(range(1, 8))
    assert 25 < sum(scene.backdrop is not None for scene in scenes) < 150
    assert len({sound.caption for sound in sounds}) > 470


# Scenes


def test_a_scene_survives_json(sounds, scenes):
    for sound, scene in zip(sounds, scenes, strict=True):
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene
        assert scene.to_dict() == sound.scene


def test_the_scene_alone_gives_the_sound_back(sounds, scenes):
    for i in range(0, 500, 25):
        np.testing.assert_array_equal(render(scenes[i], RATE), sounds[i].wav)


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


def test_tones_within_scenes_have_the_pitch_of_the_scene(scenes, sounds):
    checked = 0
    for scene, sound in zip(scenes, sounds, strict=True):
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


def test_as_many_clicks_sound_as_the_scene_lists(scenes, sounds):
    checked = 0
    for scene, sound in zip(scenes, sounds, strict=True):
        if scene.backdrop:
            continue
        for kind, group in itertools.groupby(scene.events, key=lambda event: event.kind):
            events = list(group)
            if kind in ("click", "hat"):
                assert onsets(sound.wav, events[0].start - 0.02, events[-1].end + 0.02) == len(events)
                checked += 1
    assert checked > 80


def test_every_sounding_moment_is_inside_an_event(scenes, sounds):
    for scene, sound in zip(scenes, sounds, strict=True):
        silent = np.ones(len(sound.wav), bool)
        for event in scene.events:
            inside = slice(round(event.start * RATE), round(event.end * RATE))
            silent[inside] = False
            assert np.any(sound.wav[inside] != 0)
        assert np.all(sound.wav[silent] == 0)


def test_the_louder_event_of_a_scene_measures_louder(scenes, sounds):
    compared = 0
    for scene, sound in zip(scenes, sounds, strict=True):
        if scene.backdrop:
            continue
        measured = [level_db(sound.wav[round(e.start * RATE) : round(e.end * RATE)], RATE) for e in scene.events]
        for (a, level_a), (b, level_b) in itertools.pairwise(zip(scene.events, measured, strict=True)):
            if a.loudness_db != b.loudness_db:
                assert (a.loudness_db > b.loudness_db) == (level_a > level_b)
                compared += 1
    assert compared > 100


# Captions

NUMBERS = ["a", "two", "three", "four", "five", "six", "seven"]
NOUNS = {
    "sweep": r"(?:rising|falling) (?:tone|chirp)s?|(?:up|down)ward sweeps?",
    "buzz": r"buzzing (?:tone|note)s?",
    "tone": r"(?:pure |sine )?tones?|beeps?",
    "noise": r"(?:burst|stretch)(?:e?s)? of \w+ noise|(?:hissing|low rumbling) sounds?",
    "click": r"clicks?",
    "pluck": r"plucked (?:string|note)s?|plucks? of a string",
    "kick": r"(?:kick|bass) drum hits?|thumps? of a kick drum",
    "snare": r"snare (?:drum )?hits?|strokes? on a snare drum",
    "hat": r"hi-hat hits?|ticks? of a hi-hat",
}
GROUP = re.compile(
    rf"\b(?P<count>an|{'|'.join(NUMBERS)}) (?P<level>loud |soft |quiet |faint )?"
    r"(?:(?:short|brief|long|dry|raspy|closed) )*(?:"
    + "|".join(f"(?P<{kind}>{noun})" for kind, noun in NOUNS.items())
    + r")\b"
)


def heard_in(text: str) -> list[tuple[str, int, str]]:
    """(kind, count, level word) of each group a caption tells of, in the order in which they sound."""
    text = re.sub(r"(?:over|with) (?:soft|quiet|faint) \w+ noise", "", text.lower())
    text = re.sub(r"an? (?:soft |quiet |faint )?(?:steady|constant) (?:buzzing )?tone", "", text)
    groups = [
        (m.lastgroup, 1 if m["count"] == "an" else NUMBERS.index(m["count"]) + 1, (m["level"] or "").strip())
        for m in GROUP.finditer(text)
    ]
    return groups[::-1] if re.search(r" after (?!that)|preceded", text) else groups


def groups_of(scene: Scene) -> list[list[Event]]:
    return [list(group) for _, group in itertools.groupby(scene.foreground, key=lambda event: event.kind)]


def test_captions_tell_kinds_counts_and_order_as_they_are(scenes, sounds):
    for scene, sound in zip(scenes, sounds, strict=True):
        expected = [(group[0].kind, len(group)) for group in groups_of(scene)]
        assert [(kind, count) for kind, count, _ in heard_in(sound.caption)] == expected, sound.caption


def test_captions_call_loud_what_is_loud_and_soft_what_is_soft(scenes, sounds):
    words = []
    for scene, sound in zip(scenes, sounds, strict=True):
        for (_, _, word), group in zip(heard_in(sound.caption), groups_of(scene), strict=True):
            level = group[0].loudness_db
            allowed = {"", "loud"} if level > -20 else {"", "soft", "quiet", "faint"} if level < -32 else {""}
            assert word in allowed, sound.caption
            words.append(word)
    assert len(set(words)) == 5


def test_captions_name_only_pitches_that_sound(scenes, sounds):
    notes = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
    named = 0
    for scene, sound in zip(scenes, sounds, strict=True):
        pitches = [p for e in scene.events for p in (e.pitch_hz, e.end_pitch_hz) if p is not None]
        for text in re.findall(r"(\d+)(?= Hz| to \d+ Hz)", sound.caption):
            assert min(abs(float(text) - p) for p in pitches) <= 0.5, sound.caption
            named += 1
        for note, octave in re.findall(r"\b([A-G]#?)(\d)\b", sound.caption):
            hz = 440 * 2 ** ((notes.index(note) + 12 * int(octave) - 57) / 12)
            assert min(abs(1200 * np.log2(hz / p)) for p in pitches) < 2, sound.caption
            named += 1
    assert named > 200


def test_captions_say_rising_where_pitch_rises(scenes, sounds):
    for scene, sound in zip(scenes, sounds, strict=True):
        ways = {"rising": set(), "falling": set()}
        for group in groups_of(scene):
            track = [p for e in group for p in (e.pitch_hz, e.end_pitch_hz) if p is not None]
            steps = np.diff(track[:2] if group[0].kind == "sweep" else track)
            if len(steps):
                ways["rising"].add(bool((steps > 0).all()))
                ways["falling"].add(bool((steps < 0).all()))
        for way, seen in ways.items():
            if way in sound.caption:
                assert True in seen, sound.caption


def test_captions_give_times_that_are_in_the_scene(scenes, sounds):
    named = {"half a second": 0.5, "three quarters of a second": 0.75, "a second": 1.0, "two seconds": 2.0}
    pattern = rf"({'|'.join(named)}|[\d.]+ seconds) (later|apart)|lasting ({'|'.join(named)}|[\d.]+ seconds)"
    told = 0
    for scene, sound in zip(scenes, sounds, strict=True):
        events = scene.foreground
        facts = {
            "later": [b.start - a.end for a, b in itertools.pairwise(events)],
            "apart": [b.start - a.start for a, b in itertools.pairwise(events)],
            "": [e.duration for e in events],
        }
        for before, word, lasting in re.findall(pattern, sound.caption):
            text = before or lasting
            seconds = named.get(text) or float(text.split()[0])
            assert min(abs(seconds - fact) for fact in facts[word]) < 0.006, sound.caption
            told += 1
    assert told > 100


def test_a_backdrop_is_told_and_only_a_backdrop(scenes, sounds):
    for scene, sound in zip(scenes, sounds, strict=True):
        told = re.search(r"\bover\b|throughout|in the background", sound.caption, re.IGNORECASE)
        assert bool(told) == (scene.backdrop is not None), sound.caption
        if scene.backdrop and scene.backdrop.kind == "noise":
            assert f"{scene.backdrop.colour} noise" in sound.caption


def test_one_scene_has_many_phrasings(scenes):
    for scene in scenes[:20]:
        assert len({caption(scene, np.random.default_rng(i)) for i in range(60)}) >= 8


def test_captions_are_sentences(sounds):
    for sound in sounds:
        assert re.fullmatch(r"[A-Z][^.]*(\d\.\d[^.]*)*\.", sound.caption), sound.caption
        assert "  " not in sound.caption and not re.search(r"\ba [aeiou]|\ban [^aeiou]|\{", sound.caption)


def test_a_caption_reads_like_this():
    events = [Event("click", 0.1 + 0.2 * i, 0.01, -26.0) for i in range(3)]
    sweep = Event("sweep", 1.01, 1.0, -18.0, pitch_hz=300.0, end_pitch_hz=900.0)
    told = {caption(Scene(2.5, (*events, sweep), 0), np.random.default_rng(i)) for i in range(3000)}
    assert "Three short clicks, then a rising tone from 300 to 900 Hz." in told
    assert "Three clicks in quick succession, and half a second later a loud rising tone from 300 to 900 Hz." in told
