"""The API for people: prompts in, sounds and texts out, without a mesh or a token grid."""

import dataclasses
import sys
import types

import jax
import numpy as np
import pytest

from ualm_jax.audio.io import read_audio
from ualm_jax.errors import UserError
from ualm_jax.generate import SamplingParams, generate
from ualm_jax.generate.inputs import Prompt, read_sound
from ualm_jax.generate.work import work_of
from ualm_jax.tokens.layout import build_prompt


@pytest.fixture(autouse=True)
def one_device_mesh():
    """In place of the fixture of that name: users set no mesh."""


@pytest.fixture(scope="module")
def clips(pipeline):
    return pipeline.generate(["two beeps", "a drum, then rain"], seconds=0.4, seed=5, top_k=7)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(size=round(16000 * seconds)).astype(np.float32) * 0.1


def test_prompts_become_sounds_as_the_functions_below_make_them(pipeline, clips, tmp_path):
    params = SamplingParams(min_frames=20, max_frames=20, seed=5, top_k=7)
    vocabulary = pipeline.model.architecture.vocabulary
    with jax.set_mesh(pipeline.mesh):
        prompts = [build_prompt([pipeline.text_message(clip.prompt)], vocabulary) for clip in clips]
        segments = generate(pipeline.model, prompts, params)
    for index, (clip, segment) in enumerate(zip(clips, segments, strict=True)):
        np.testing.assert_array_equal(clip.codes, segment.tokens)
        np.testing.assert_array_equal(clip.samples, pipeline.codec.decode(clip.codes))
        assert (clip.seed, clip.seconds, clip.rate) == (5 + index, 0.4, 16000)
    clips[0].save(tmp_path / "out.wav")
    heard = read_audio(tmp_path / "out.wav", sample_rate=16000)
    assert np.abs(heard - clips[0].samples / max(1, np.abs(clips[0].samples).max() / 0.999)).max() < 1e-4


def test_limited_to_what_is_asked_for_it_makes_the_same(pipeline):
    params = pipeline.sampling("audio", 0.2, {"cfg_scale": 1.0, "temperature": 0.0})
    few = pipeline.limited(work_of([("audio", params, False)]))
    assert few.engine._state.cache.length.shape == few.engine._state.live.shape == pipeline.engine._state.live.shape
    how = dict(seconds=0.2, cfg_scale=1.0, temperature=0.0)
    made, usual = (each.generate(["two beeps", "a drum"], **how) for each in (few, pipeline))
    assert [clip.codes.tolist() for clip in made] == [clip.codes.tolist() for clip in usual]
    assert made[0].made_by.to_mapping()["work"] == ["audio"]
    others = {"guided": dict(cfg_scale=2.0), "text": dict(modality="text"), "filtered": dict(top_p=0.5)}
    for more, other in others.items():
        with pytest.raises(UserError, match=f"asks for more than the model was limited to: {more}"):
            few.generate("a drum", **{"cfg_scale": 1.0, "temperature": 0.0} | other)
    one = dataclasses.replace(pipeline, slots=1, sequences=1)
    with pytest.raises(UserError, match=r"more of them \(sequences\), or ask without guidance"):
        one.generate("a drum", seconds=0.2)


def test_a_checkpoint_may_recommend_settings_of_audio_which_whoever_asks_may_change(pipeline):
    given = dataclasses.replace(pipeline, audio_defaults={"cfg_scale": 2.0, "temperature": 0.5})
    params = given.prompt("a drum", temperature=0.7).params
    assert (params.cfg_scale, params.temperature) == (2.0, 0.7)
    params = given.prompt("what?", modality="text").params
    assert (params.text_temperature, params.cfg_scale) == (0.0, SamplingParams().cfg_scale)


def test_a_clip_plays_in_a_notebook(clips, monkeypatch):
    shown = []
    notebook = types.ModuleType("IPython.display")
    notebook.Audio, notebook.display = (lambda data, rate, normalize: (data, rate, normalize)), shown.append
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    clips[0].show()
    ((data, rate, normalize),) = shown
    assert (rate, normalize) == (16000, False) and np.abs(data).max() <= 1
    assert np.corrcoef(data, clips[0].samples)[0, 1] > 0.999
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(UserError, match="where IPython is"):
        clips[0].show()


def test_an_answer_is_the_same_alone(pipeline, clips):
    (alone,) = pipeline.generate("a drum, then rain", seconds=0.4, seed=6, top_k=7)
    np.testing.assert_array_equal(alone.codes, clips[1].codes)


def test_a_question_about_a_sound_is_answered_in_words(pipeline, clips, tmp_path):
    clips[0].save(tmp_path / "clip.wav")
    said = pipeline.ask(tmp_path / "clip.wav", "What do you hear?", max_tokens=6)
    assert isinstance(said, str) and said
    assert pipeline.ask([noise(0.5), (noise(0.5), 32000)], "And now?", max_tokens=6) == [
        pipeline.ask(sound, "And now?", max_tokens=6) for sound in (noise(0.5), (noise(0.5), 32000))
    ]


def test_a_clip_sounds_to_a_model_as_its_file_does(clips, tmp_path):
    loud = dataclasses.replace(clips[0], samples=clips[0].samples * 100)
    loud.save(tmp_path / "loud.wav", depth="float")
    np.testing.assert_allclose(read_sound(loud, 16000), read_sound(tmp_path / "loud.wav", 16000), atol=2e-3)
    with pytest.raises(UserError, match="where full scale is 1"):
        read_sound(loud.samples, 16000)


def test_an_answer_has_the_log_probabilities_of_its_tokens(pipeline, clips):
    (clip,) = pipeline.generate(["two beeps"], seconds=0.4, seed=5, top_k=7, log_probabilities=True)
    np.testing.assert_array_equal(clip.codes, clips[0].codes)
    assert clip.log_probabilities.shape == (28, 8) and (clip.log_probabilities[7:20] < 0).all()


def test_what_cannot_be_answered_leaves_the_others_alone(pipeline, clips):
    long = "word " * 300
    answers = pipeline.generate(["", "a drum, then rain", long], seconds=0.4, seed=5, top_k=7, return_exceptions=True)
    assert "The prompt is empty" in str(answers[0])
    np.testing.assert_array_equal(answers[1].codes, clips[1].codes)
    assert "there is room for 256" in str(answers[2])
    with pytest.raises(UserError, match="The prompt is empty"):
        pipeline.generate(["two beeps", " "])
    short, wav = (pipeline.ask([noise(s), noise(0.5)], "?", max_tokens=3, return_exceptions=True) for s in (0.001, 0.5))
    assert "too few" in str(short[0]) and short[1] == wav[1]


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(seconds=0), "seconds must be above 0 and at most 3600, got 0"),
        (dict(seconds=10_000), "seconds must be above 0 and at most 3600"),
        (dict(seconds="4"), "seconds must be above 0 and at most 3600, got '4'"),
        (dict(reference_behaviour=True), "reference_behaviour is for comparisons"),
        (dict(seconds=float("nan")), "seconds must be above 0"),
        (dict(cfg_scale=-1.0), "cfg_scale must be at least 0"),
        (dict(modality="smell"), "modality must be one of audio, text, speech or auto"),
        (dict(temprature=1.0), "no setting temprature; did you mean temperature"),
        (dict(temperature="hot"), "temperature must be a number, got 'hot'"),
        (dict(top_k=1.5), "top_k must be a whole number, got 1.5"),
        (dict(modality="text", begin="a.wav"), "Only audio and speech can be continued, not text"),
        (dict(modality="text", stop=""), "stop must be strings of at least one character"),
        (dict(negative_prompt=""), "negative prompt is empty"),
        (dict(begin="nowhere.wav"), "nowhere.wav: there is no such file"),
    ],
)
def test_wrong_settings_are_one_sentence(pipeline, as_installed, settings, message):
    with pytest.raises(UserError, match=message):
        pipeline.generate(["two beeps"], **settings)


def test_wrong_prompts_are_one_sentence(pipeline, clips, as_installed):
    with pytest.raises(UserError, match="must be a text or several, got NoneType"):
        pipeline.generate(None)
    with pytest.raises(UserError, match="not written in UTF-8"):
        pipeline.generate("rain \udcff")
    with pytest.raises(UserError, match="count must be a whole number, got 2.5"):
        pipeline.best_of("rain", 2.5)
    nothing = dataclasses.replace(clips[0], codes=clips[0].codes[:0])
    with pytest.raises(UserError, match="without a frame"):
        pipeline.generate("rain", begin=nothing)
    assert pipeline.generate("rain", modality="text", stop=None, max_tokens=2)


def test_a_given_answer_has_a_likelihood(pipeline):
    (asked,) = pipeline.generate("two beeps", seconds=0.5, cfg_scale=1.0, temperature=1.0, log_probabilities=True)
    found, other, words = pipeline.score(["two beeps", "rain", "rain"], [asked, asked, "wet"])
    drawn = asked.log_probabilities[:-1]  # it ends with eos, a given answer with eot
    np.testing.assert_allclose(found[-len(drawn) - 1 : -1], drawn, rtol=1e-4)
    assert other.sum() != found.sum() and words.sum() < 0
    with pytest.raises(UserError, match="one answer to each of 2 prompts, got 1"):
        pipeline.score(["a", "b"], "c")


def test_guidance_may_lead_away_from_what_the_public_code_has(pipeline, clips):
    """Its unconditional context has no role token."""
    (other,) = pipeline.generate("two beeps", seconds=0.5, cfg_scale=4.0, reference_context=True)
    (ours,) = pipeline.generate("two beeps", seconds=0.5, cfg_scale=4.0)
    assert other.codes.shape == ours.codes.shape and (other.codes != ours.codes).any()


def test_a_missing_part_is_named(pipeline):
    deaf = dataclasses.replace(pipeline, encoder=None)
    with pytest.raises(UserError, match="golden holds no encoder"):
        deaf.ask(noise(0.5), "What?")


def test_prompts_are_read_as_slots_become_free_and_what_is_not_wanted_any_more_stops(pipeline):
    read = []

    def prompts():
        for index in range(100):
            read.append(index)
            yield Prompt(f"sound {index}", SamplingParams(min_frames=5, max_frames=5, seed=index))

    answers = pipeline.run(prompts())
    index, clip = next(answers)
    assert clip.prompt == f"sound {index}" and len(read) <= 2 * pipeline.slots
    answers.close()
    steps = pipeline.engine.steps
    pipeline.engine.advance()
    assert pipeline.engine.steps == steps
