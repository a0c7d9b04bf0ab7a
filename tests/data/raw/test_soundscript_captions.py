"""SoundScript: every caption is true of its scene."""

import itertools
import re

import numpy as np

from ualm_jax.data.raw.soundscript import Event, Scene, caption

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


def test_captions_tell_kinds_counts_and_order_as_they_are(scenes, captioned):
    for scene, sound in zip(scenes, captioned, strict=True):
        expected = [(group[0].kind, len(group)) for group in groups_of(scene)]
        assert [(kind, count) for kind, count, _ in heard_in(sound.caption)] == expected, sound.caption


def test_captions_call_loud_what_is_loud_and_soft_what_is_soft(scenes, captioned):
    words = []
    for scene, sound in zip(scenes, captioned, strict=True):
        for (_, _, word), group in zip(heard_in(sound.caption), groups_of(scene), strict=True):
            level = group[0].loudness_db
            allowed = {"", "loud"} if level > -20 else {"", "soft", "quiet", "faint"} if level < -32 else {""}
            assert word in allowed, sound.caption
            words.append(word)
    assert len(set(words)) == 5


def test_captions_name_only_pitches_that_sound(scenes, captioned):
    notes = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
    named = 0
    for scene, sound in zip(scenes, captioned, strict=True):
        pitches = [p for e in scene.events for p in (e.pitch_hz, e.end_pitch_hz) if p is not None]
        for text in re.findall(r"(\d+)(?= Hz| to \d+ Hz)", sound.caption):
            assert min(abs(float(text) - p) for p in pitches) <= 0.5, sound.caption
            named += 1
        for note, octave in re.findall(r"\b([A-G]#?)(\d)\b", sound.caption):
            hz = 440 * 2 ** ((notes.index(note) + 12 * int(octave) - 57) / 12)
            assert min(abs(1200 * np.log2(hz / p)) for p in pitches) < 2, sound.caption
            named += 1
    assert named > 200


def test_captions_say_rising_where_pitch_rises(scenes, captioned):
    for scene, sound in zip(scenes, captioned, strict=True):
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


def test_captions_give_times_that_are_in_the_scene(scenes, captioned):
    named = {"half a second": 0.5, "three quarters of a second": 0.75, "a second": 1.0, "two seconds": 2.0}
    pattern = rf"({'|'.join(named)}|[\d.]+ seconds) (later|apart)|lasting ({'|'.join(named)}|[\d.]+ seconds)"
    told = 0
    for scene, sound in zip(scenes, captioned, strict=True):
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


def test_a_backdrop_is_told_and_only_a_backdrop(scenes, captioned):
    for scene, sound in zip(scenes, captioned, strict=True):
        told = re.search(r"\bover\b|throughout|in the background", sound.caption, re.IGNORECASE)
        assert bool(told) == (scene.backdrop is not None), sound.caption
        if scene.backdrop and scene.backdrop.kind == "noise":
            assert f"{scene.backdrop.colour} noise" in sound.caption


def test_one_scene_has_many_phrasings(scenes):
    for scene in scenes[:20]:
        assert len({caption(scene, np.random.default_rng(i)) for i in range(60)}) >= 8


def test_captions_are_sentences(captioned):
    for sound in captioned:
        assert re.fullmatch(r"[A-Z][^.]*(\d\.\d[^.]*)*\.", sound.caption), sound.caption
        assert "  " not in sound.caption and not re.search(r"\ba [aeiou]|\ban [^aeiou]|\{", sound.caption)


def test_a_caption_reads_like_this():
    events = [Event("click", 0.1 + 0.2 * i, 0.01, -26.0) for i in range(3)]
    sweep = Event("sweep", 1.01, 1.0, -18.0, pitch_hz=300.0, end_pitch_hz=900.0)
    told = {caption(Scene(2.5, (*events, sweep), 0), np.random.default_rng(i)) for i in range(3000)}
    assert "Three short clicks, then a rising tone from 300 to 900 Hz." in told
    assert "Three clicks in quick succession, and half a second later a loud rising tone from 300 to 900 Hz." in told
