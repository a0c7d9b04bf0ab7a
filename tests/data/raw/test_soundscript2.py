"""Language 2: a plan, the sentence that says all of it, the scene that keeps it; what training never sees."""

import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from ualm_jax.data.raw.sound_source import SoundSource
from ualm_jax.data.raw.soundscript import Part, Plan, SoundScript2, render
from ualm_jax.data.raw.soundscript.phrase import NOUNS, describe, phrase, plain
from ualm_jax.data.raw.soundscript.plan import BANDS, LABELS, MIDI, NOTES, PITCHED
from ualm_jax.errors import UserError

SOURCE = SoundScript2(count=2000, seed=3)


@pytest.fixture(scope="module")
def scripts():
    return [SOURCE.script(index) for index in range(2000)]


def fingerprint_of_sounds() -> str:
    digest = hashlib.sha256()
    for index in range(12):
        sound = SOURCE[index]
        digest.update(f"{sound.id} {sound.caption} {json.dumps(sound.scene)}".encode() + sound.wav.tobytes())
    return digest.hexdigest()


def test_another_process_makes_the_same_sounds():
    code = "from test_soundscript2 import *; print(fingerprint_of_sounds())"
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=__file__.rpartition("/")[0], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == fingerprint_of_sounds()


def test_the_source_is_a_source_of_sounds():
    assert isinstance(SOURCE, SoundSource)
    sound = SOURCE[5]
    assert sound.wav.dtype == np.float32 and len(sound.wav) == round(sound.scene["seconds"] * 16000)
    assert SoundScript2(6, 3)[5].caption == sound.caption
    with pytest.raises(IndexError):
        SOURCE[2000]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0, "seed": 0}, "count"),
        ({"count": 1, "seed": -1}, "seed"),
        ({"count": 1, "seed": 0, "sample_rate": 8000}, "sample_rate"),
        ({"count": 1, "seed": 0, "split": "test"}, "split"),
        ({"count": 1, "seed": 0, "max_seconds": 0.8}, "max_seconds"),
        ({"count": 1, "seed": 0, "max_seconds": 5.0}, "max_seconds"),
    ],
)
def test_settings_that_no_sound_can_meet_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SoundScript2(**settings)


def test_scenes_can_be_kept_short():
    short = SoundScript2(200, 3, max_seconds=1.2)
    scripts = [short.script(index) for index in range(200)]
    assert all(script.scene.seconds <= 1.2 for script in scripts)
    assert {len(script.plan.parts) for script in scripts} >= {1, 2}
    assert short.fingerprint() != SOURCE.fingerprint() | {"count": 200}
    assert "max_seconds" not in SOURCE.fingerprint()  # datasets begun before there was a choice go on


def test_scenes_keep_their_plans(scripts):
    for script in scripts:
        plan, events = script.plan, script.scene.events
        parts = [part for part in plan.parts for _ in range(part.count)]
        assert len(events) == len(parts) <= 4 and 0.8 <= script.scene.seconds <= 4.0
        for event, part in zip(events, parts, strict=True):
            assert event.label == part.kind and event.duration == part.seconds
            if part.kind in PITCHED:
                midi = 69 + 12 * np.log2(event.pitch_hz / 440)
                allowed = [MIDI[part.pitch]] if part.pitch in MIDI else BANDS[part.pitch]
                assert min(abs(midi - each) for each in allowed) < 0.01


def test_no_sound_clips():
    loud = Plan((Part("tone", 1, "low", "long", "loud"), Part("click", 3, level="loud")), ("while",))
    for seed in range(3):
        from ualm_jax.data.raw.soundscript.invent import realise

        assert np.abs(render(realise(loud, np.random.default_rng(seed)), 16000)).max() < 0.95


def test_every_pitch_has_one_name():
    named = [MIDI[note] for note in NOTES] + [midi for band in BANDS.values() for midi in band]
    assert len(set(named)) == len(named)


def test_captions_are_varied_short_and_of_few_words(scripts):
    captions = [script.caption for script in scripts]
    assert len(set(captions)) > 1850
    assert max(len(caption.split()) for caption in captions) <= 25
    assert len({word for caption in captions for word in re.findall(r"[\w#-]+", caption.lower())}) <= 130
    for caption in captions:
        assert re.fullmatch(r"[A-Z][^.]*\.", caption) and "  " not in caption
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\{|None", caption), caption


def words_of(caption: str) -> list[tuple[str, int]]:
    """(kind, count) of every part that a caption tells of, in the order of the sentence."""
    nouns = {
        noun.format(s=s, es=es): kind
        for kind, names in (NOUNS | {"tone": (*NOUNS["tone"], "beep{s}")}).items()
        for noun in names
        for s, es in (("", ""), ("s", "es"))
    }
    numbers = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
    times = {"once": 1, "twice": 2, "three times": 3, "four times": 4}
    alternatives = "|".join(map(re.escape, sorted(nouns, key=len, reverse=True)))
    pattern = rf"\b({'|'.join(numbers)}) (?:(?:loud|soft|louder|softer|short|long|low|high) )*({alternatives})\b"
    pattern += rf"(?: at [A-G]\d)?(?: ({'|'.join(times)}))?"
    return [
        (nouns[noun], times[repeated] if repeated else numbers[number])
        for number, noun, repeated in re.findall(pattern, caption[0].lower() + caption[1:])
    ]


def test_captions_tell_kinds_counts_and_order_as_they_are(scripts):
    turned = 0
    for script in scripts:
        told, expected = words_of(script.caption), [(part.kind, part.count) for part in script.plan.parts]
        backwards = re.search(r" after (?!a pause)|^Before| over (?!it)|during", script.caption)
        if told != expected:
            assert told == expected[::-1] and backwards, (script.caption, script.plan)
            turned += 1
    assert 50 < turned < 500


def test_captions_tell_pitches_durations_and_levels(scripts):
    for script in scripts:
        for part in script.plan.parts:
            for word in (part.pitch, part.duration, part.level):
                beep = word == "short" and "beep" in script.caption
                assert word is None or word in script.caption or beep, script.caption


def test_plain_sentences_tell_plans_apart(scripts):
    plans = {script.plan for script in scripts}
    assert len({plain(plan) for plan in plans}) == len(plans)


def test_what_is_held_out_is_never_in_training(scripts):
    assert not any(script.plan.held_out for script in scripts)
    combination, phrasing = (SoundScript2(200, 3, split=split) for split in ("combination", "phrasing"))
    in_training = {key for script in scripts for key in script.plan.combinations}
    for index in range(200):
        plan = combination.script(index).plan
        assert plan.held_out and not set(plan.combinations) <= in_training
        assert not phrasing.script(index).plan.held_out
    captions = {script.caption for script in scripts}
    assert not captions & {phrasing.script(index).caption for index in range(200)}


def test_every_kind_pitch_and_link_is_in_training(scripts):
    plans = [script.plan for script in scripts]
    assert {part.kind for plan in plans for part in plan.parts} == set(LABELS)
    assert {part.pitch for plan in plans for part in plan.parts} == {None, "low", "high", *NOTES}
    assert {link for plan in plans for link in plan.links} == {"then", "pause", "at once", "while"}


def test_held_out_frames_are_never_used_in_training():
    plan = Plan((Part("click", 2), Part("tone", 1, "low")), ("then",))
    rng = np.random.default_rng(0)
    used = {phrase(plan, rng) for _ in range(300)}
    held = {phrase(plan, rng, held_out=True) for _ in range(300)}
    assert len(used) > 30 and len(held - {None}) > 5 and not used & held


def test_a_plan_survives_json(scripts):
    for script in scripts[:200]:
        assert Plan.from_dict(json.loads(json.dumps(script.plan.to_dict()))) == script.plan


@pytest.mark.parametrize(
    "make",
    [
        lambda: Part("bark"),
        lambda: Part("click", 5),
        lambda: Part("click", pitch="low"),
        lambda: Part("tone", pitch="H4"),
        lambda: Part("kick", duration="long"),
        lambda: Plan(()),
        lambda: Plan((Part("click"), Part("kick"))),
        lambda: Plan((Part("click"), Part("click", 2)), ("then",)),
        lambda: Plan((Part("click", 3), Part("kick", 2)), ("then",)),
        lambda: Plan((Part("buzz", 1, None, "long"), Part("click")), ("while",)),
        lambda: Plan((Part("tone", 1, "C5", "long"), Part("click")), ("while",)),
    ],
)
def test_what_no_plan_can_be_is_refused(make):
    with pytest.raises(ValueError):
        make()


def test_a_caption_reads_like_this():
    plan = Plan((Part("tone", 1, "low", "short"), Part("clap", 2)), ("then",))
    assert plain(plan) == "A short low tone, then two claps."
    assert describe(Part("buzz", 3, "C4", "long", "soft")) == "three soft long buzzes at C4"
    rng = np.random.default_rng(0)
    said = {phrase(plan, rng) for _ in range(2000)}
    assert "A low beep, then two claps." in said and "Make a low beep once followed by a clap twice." in said
