"""The checker hears in original sounds what is in their scenes, and finds each fault on its track alone."""

import dataclasses

import numpy as np
import pytest

from ualm_jax.data.raw.soundscript import Event, Scene, SoundScript, SoundScript2, render
from ualm_jax.evaluate.soundscript import hear, judge_scene
from ualm_jax.evaluate.soundscript.pitch import harmonic_pitch

RATE = 16000
HELD_OUT_SEED = 20_260


def tone(start, pitch=440.0, seconds=0.3, level=-26.0):
    return Event("tone", start, seconds, level, pitch_hz=pitch)


def click(start, level=-26.0):
    return Event("click", start, 0.01, level)


def judged(heard_events, scene_events):
    heard = hear(render(Scene(4.0, tuple(heard_events), 1), RATE))
    return judge_scene(heard, Scene(4.0, tuple(scene_events), 1))


def wrong(verdict):
    return {track for track, right in verdict.tracks.items() if right is False}


@pytest.fixture(scope="module")
def originals():
    """100 sounds without a backdrop, and their scenes."""
    source, found = SoundScript(200, HELD_OUT_SEED), []
    for index in range(200):
        sound = source[index]
        scene = Scene.from_dict(sound.scene)
        if scene.backdrop is None:
            found.append((sound.wav, scene))
    return found[:100]


def test_nearly_all_originals_are_fully_right(originals):
    verdicts = [judge_scene(hear(wav), scene) for wav, scene in originals]
    assert np.mean([verdict.right for verdict in verdicts]) >= 0.98
    assert max(abs(cents) for verdict in verdicts for cents in verdict.cents) < 15


def test_nearly_all_originals_of_language_2_are_fully_right():
    """Its scenes overlap, too; those that do are a tenth, so there are some of them in here."""
    scripts = [SoundScript2(100, HELD_OUT_SEED).script(index) for index in range(100)]
    verdicts = [judge_scene(hear(render(script.scene, RATE)), script.scene) for script in scripts]
    assert np.mean([verdict.right for verdict in verdicts]) >= 0.98
    over = [verdict for verdict, script in zip(verdicts, scripts, strict=True) if script.plan.overlaps]
    assert len(over) >= 5 and all(verdict.right for verdict in over)


def test_noise_at_minus_55_db_changes_little(originals):
    rng = np.random.default_rng(0)
    noise = [10 ** (-55 / 20) * rng.standard_normal(len(wav)).astype(np.float32) for wav, _ in originals]
    verdicts = [judge_scene(hear(wav + n), scene) for (wav, scene), n in zip(originals, noise, strict=True)]
    assert np.mean([verdict.right for verdict in verdicts]) >= 0.97


def test_scenes_of_others_are_rarely_right(originals):
    others = [scene for _, scene in originals[1:]] + [originals[0][1]]
    verdicts = [judge_scene(hear(wav), scene) for (wav, _), scene in zip(originals, others, strict=True)]
    assert np.mean([verdict.right for verdict in verdicts]) <= 0.03


@pytest.mark.parametrize("level", [-34.0, -26.0, -18.0])
def test_a_clap_is_heard_as_a_clap(level):
    for seed in range(5):
        scene = Scene(1.0, (Event("clap", 0.1, 0.15, level), Event("snare", 0.5, 0.2, level)), seed)
        assert [event.kind for event in hear(render(scene, RATE))] == ["clap", "snare"]


@pytest.mark.parametrize("tone_level, hat_level", [(-20.0, -32.0), (-32.0, -20.0), (-26.0, -26.0)])
def test_what_is_struck_over_a_tone_is_heard(tone_level, hat_level):
    hats = [Event("hat", start, 0.1, hat_level) for start in (0.2, 0.45, 0.7)]
    heard = hear(render(Scene(1.2, (tone(0.1, 349.23, 0.8, tone_level), *hats), 0), RATE))
    assert [event.kind for event in heard] == ["tone", "hat", "hat", "hat"]
    assert heard[0].duration == pytest.approx(0.8, abs=0.02) and heard[0].pitch_hz == pytest.approx(349.23, rel=0.002)
    assert [event.loudness_db for event in heard] == pytest.approx([tone_level] + [hat_level] * 3, abs=1.5)


def test_anything_is_heard_as_something():
    """No waveform makes the checker fail: cut, clipped, reversed, shaken, as short as a sample."""
    rng = np.random.default_rng(0)
    wav = SoundScript2(1, 5)[0].wav
    changed = [
        wav[::-1],
        np.clip(wav * 20, -1, 1),
        np.ones_like(wav),
        np.tile(wav, 3),
        wav * rng.uniform(size=len(wav)),
    ]
    changed += [wav[: int(rng.integers(1, len(wav)))] for _ in range(20)]
    changed += [0.1 * rng.standard_normal(n) for n in (1, 2, 79, 80, 81, 161, 511, 512, 513, 2000)]
    changed += [np.eye(1, n, n // 2)[0] for n in (1, 100, 5000)]
    for each in changed:
        hear(each.astype(np.float32))


def test_a_rumble_with_a_faint_whistle_has_the_pitch_of_its_strongest_partial():
    """Its autocorrelation falls below zero before it has a first peak, so no period is found."""
    seconds = np.arange(1840) / 16000
    wav = np.sin(2 * np.pi * 35 * seconds) + 0.1 * np.sin(2 * np.pi * 500 * seconds)
    assert harmonic_pitch(wav) == pytest.approx(35, abs=3)


def test_silence_holds_nothing():
    assert hear(np.zeros(16000, np.float32)) == ()
    assert hear(np.zeros(0, np.float32)) == ()


def test_samples_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        hear(np.array([0.0, np.nan], np.float32))


def test_what_is_right_is_right_on_every_track():
    events = [click(0.1, -18.0), click(0.4, -18.0), tone(1.0)]
    verdict = judged(events, events)
    assert verdict.right and wrong(verdict) == set()
    assert [track for track, right in verdict.tracks.items() if right is None] == ["overlap"]


def test_a_missing_event_is_a_fault_of_the_count():
    verdict = judged([click(0.1), tone(1.0)], [click(0.1), click(0.4), tone(1.0)])
    assert {"count"} <= wrong(verdict) <= {"count", "gap"}
    assert (verdict.pairs.count(("click", None)), verdict.pairs.count(("click", "click"))) == (1, 1)


def test_another_order_is_a_fault_of_the_order():
    assert "order" in wrong(judged([tone(0.1), click(0.8)], [click(0.1), tone(0.5)]))
    assert not {"class", "count"} & wrong(judged([tone(0.1), click(0.8)], [click(0.1), tone(0.5)]))


def test_another_kind_is_a_fault_of_class_and_order():
    verdict = judged([Event("hat", 0.1, 0.1, -26.0), tone(1.0)], [click(0.1), tone(1.0)])
    assert {"class", "order"} <= wrong(verdict)
    assert "count" not in wrong(verdict) and ("click", "hat") in verdict.pairs


def test_a_semitone_is_a_fault_of_the_pitch_and_measured_in_cents():
    verdict = judged([tone(0.1, 440 * 2 ** (1 / 12))], [tone(0.1)])
    assert wrong(verdict) == {"pitch"} and verdict.cents == pytest.approx([100], abs=1)
    assert judged([tone(0.1, 440 * 2 ** (0.4 / 12))], [tone(0.1)]).right


def test_a_falling_sweep_is_not_a_rising_one():
    rising = Event("sweep", 0.1, 0.5, -26.0, pitch_hz=300.0, end_pitch_hz=600.0)
    falling = dataclasses.replace(rising, pitch_hz=600.0, end_pitch_hz=300.0)
    (heard,) = hear(render(Scene(1.0, (falling,), 0), RATE))
    assert heard.label == "fall"
    assert heard.pitch_hz == pytest.approx(600, rel=0.01) and heard.end_pitch_hz == pytest.approx(300, rel=0.01)
    assert {"class", "order"} <= wrong(judged([falling], [rising]))


def test_a_long_tone_is_a_fault_of_the_duration_alone():
    verdict = judged([tone(0.1, seconds=0.5), click(0.8)], [tone(0.1, seconds=0.3), click(0.6)])
    assert wrong(verdict) == {"duration"} and verdict.duration_errors == pytest.approx([0.2], abs=0.01)


def test_a_long_pause_is_a_fault_of_the_gap_alone():
    verdict = judged([click(0.1), tone(1.0)], [click(0.1), tone(0.5)])
    assert wrong(verdict) == {"gap"} and verdict.gap_errors == pytest.approx([0.5], abs=0.01)


def test_what_should_be_louder_must_be_louder():
    loud_first = [click(0.1, -18.0), tone(0.5, level=-30.0)]
    assert wrong(judged([click(0.1, -30.0), tone(0.5, level=-18.0)], loud_first)) == {"loudness"}
    assert wrong(judged([click(0.1, -25.0), tone(0.5, level=-25.0)], loud_first)) == {"loudness"}


@pytest.mark.slow
@pytest.mark.parametrize("language", [1, 2])
def test_of_2000_originals_at_least_98_percent_are_fully_right(language):
    source = SoundScript(3000, HELD_OUT_SEED + 1) if language == 1 else SoundScript2(3000, HELD_OUT_SEED + 1)
    right = []
    for sound in source:
        scene = Scene.from_dict(sound.scene)
        if scene.backdrop is None:
            right.append(judge_scene(hear(sound.wav), scene).right)
        if len(right) == 2000:
            break
    assert len(right) == 2000 and np.mean(right) >= 0.98
