"""Answers while they are made, and audio that goes on: from a sound, and beyond the window."""

import dataclasses

import jax
import numpy as np
import pytest

from ualm_jax.audio.io import read_audio
from ualm_jax.errors import UserError
from ualm_jax.generate.inputs import Prompt
from ualm_jax.generate.job import Job
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.stop_strings import before, until


@pytest.fixture(autouse=True)
def one_device_mesh():
    """In place of the fixture of that name: users set no mesh."""


WORDS = dict(modality="text", max_tokens=30, temperature=3.0, top_k=0, seed=2)


@pytest.fixture(scope="module")
def clip(pipeline):
    (clip,) = pipeline.generate("rain", seconds=2, seed=3)
    return clip


def test_chunks_are_the_sound_that_the_codec_makes_of_all_of_it(pipeline, clip):
    stream = pipeline.stream("rain", seconds=2, seed=3)
    chunks = list(stream)
    assert [len(chunk) // 320 for chunk in chunks] == [2, 4, 8, 16, 25, 25, 20]
    np.testing.assert_allclose(np.concatenate(chunks), clip.samples, atol=1e-3)
    np.testing.assert_array_equal(stream.answer.codes, clip.codes)
    assert stream.seconds_to_first > 0 and stream.underruns >= 0


def test_the_first_chunk_comes_before_the_rest_is_made(pipeline):
    steps = pipeline.engine.steps
    chunks = iter(pipeline.stream("rain", seconds=2, seed=3, first_chunk_frames=3))
    assert len(next(chunks)) == 3 * 320
    # Three frames, those behind them that the codec needs, and the delay of eight streams.
    assert pipeline.engine.steps - steps == 3 + pipeline.codec.context + 7
    chunks.close()
    pipeline.engine.advance()
    assert pipeline.engine.steps - steps == 3 + pipeline.codec.context + 7, "nobody waits for it any more"


def test_half_the_context_is_not_enough(pipeline, clip):
    """What the codec says of its context is no more than a bound, but not one that could be left out."""
    wanted, context = clip.samples[50 * 320 :], pipeline.codec.context
    off = []
    for known in (context, context // 2):
        part = pipeline.codec.decode(clip.codes[50 - known :])[known * 320 :]
        off.append(np.abs(part - wanted).max())
    assert off[0] < 1e-5 and off[1] > 1e-3


def test_underruns_are_chunks_that_came_too_late(pipeline, monkeypatch):
    from ualm_jax.generate import stream as module

    now = iter([0.0, 1.0, 1.04, 1.5, 2.6, 2.9])  # of the start and of each chunk: all of 0.5 s
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(now))
    stream = pipeline.stream("rain", seconds=2.5, seed=3, first_chunk_frames=25)
    assert len(list(stream)) == 5
    assert stream.seconds_to_first == 1.0 and stream.underruns == 1


def test_a_text_comes_in_pieces(pipeline):
    (whole,) = pipeline.generate("rain", **WORDS)
    stream = pipeline.stream("rain", **WORDS)
    pieces = list(stream)
    assert "".join(pieces) == whole.text == stream.answer.text and len(pieces) > 5


def test_a_string_stops_a_text_wherever_it_stands(pipeline):
    (whole,) = pipeline.generate("rain", **WORDS)
    assert len(whole.text) > 12
    for stop in (whole.text[5:8], whole.text[9], whole.text[4:10]):
        wanted = whole.text[: whole.text.index(stop)]
        (stopped,) = pipeline.generate("rain", **WORDS, stop=[stop, "never said"])
        assert stopped.text == wanted and stopped.end == "eos"
        assert "".join(pipeline.stream("rain", **WORDS, stop=stop)) == wanted


def test_the_tokens_of_a_stopped_text_do_not_depend_on_when_it_was_looked_at(pipeline):
    tokenizer = pipeline.tokenizer
    ids = tokenizer.encode("one two\n\nthree \U0001f941 four")
    kept = until(tokenizer, ["\n\n", "four"])
    counts = {kept(np.array(ids[:n], np.int32)) for n in range(len(ids) + 1)}
    assert len(counts) == 2 and before(tokenizer.decode(ids[: max(counts - {None})]), ["\n\n"]) == "one two"
    assert until(tokenizer, ()) is None


def test_a_sound_is_continued_as_if_it_had_not_stopped(pipeline, clip):
    """The same seed goes on with the same noise: the rest of a clip is what the model would have made anyway."""
    begun = dataclasses.replace(clip, codes=clip.codes[:60])
    (whole,) = pipeline.generate("rain", seconds=0.8, seed=3, begin=begun)
    np.testing.assert_array_equal(whole.codes, clip.codes)
    chunks = list(pipeline.stream("rain", seconds=0.8, seed=3, begin=begun))
    np.testing.assert_allclose(np.concatenate(chunks), clip.samples[60 * 320 :], atol=1e-3)


def test_a_sound_file_is_continued(pipeline, clip, tmp_path):
    clip.save(tmp_path / "begin.wav", depth="float")
    (longer,) = pipeline.generate("rain", seconds=1, begin=tmp_path / "begin.wav")
    assert len(longer.codes) == 150
    samples = read_audio(tmp_path / "begin.wav", sample_rate=16000)
    np.testing.assert_array_equal(longer.codes[:100], pipeline.codec.encode(samples))


def test_a_sound_longer_than_the_window_is_continued_too(pipeline, clip):
    begun = dataclasses.replace(clip, codes=np.tile(clip.codes, (3, 1)))
    (longer,) = pipeline.generate("rain", seconds=0.2, begin=begun)
    np.testing.assert_array_equal(longer.codes[:300], begun.codes)
    assert len(longer.codes) == 310 and len({tuple(frame) for frame in longer.codes[300:].tolist()}) > 1


def test_audio_longer_than_the_window_has_no_seam(pipeline, monkeypatch):
    """What follows a slide is what a prompt that begins with the kept half would be answered with."""
    slides = []
    slide = Job.slide

    def noted(job, capacity):
        slide(job, capacity)
        slides.append((len(job.tokens), job.request))

    monkeypatch.setattr(Job, "slide", noted)
    (clip,) = pipeline.generate("rain", seconds=10, seed=3, cfg_scale=2.0)
    assert len(clip.codes) == 500 and clip.end in ("eos", "eot") and len(slides) == 3
    prompt = len(pipeline.request(Prompt("rain")).prompt.tokens)
    made, request = slides[1]
    assert len(request.begun) == (pipeline.window - prompt) // 2
    start, frames = made - len(request.begun), pipeline.window - prompt - 8
    assert request.draws == start, "the noise goes on, too"
    params = dataclasses.replace(request.params, min_frames=frames, max_frames=frames)
    (job,) = pipeline.engine.run([dataclasses.replace(request, slide=False, params=params)])
    # All but the last frames, in which it knows that it ends; the first have lost what the slide has cut off.
    np.testing.assert_array_equal(job.result().tokens[7:-8], clip.codes[start : start + frames][7:-8])


def test_the_end_may_fall_wherever_a_window_ends(pipeline):
    """Audio whose last steps, in which streams end one after the other, a slide cuts in two."""
    prompt = pipeline.request(Prompt("rain")).prompt
    room = pipeline.window - len(prompt.tokens)
    lengths = range(room - 9, room + 3)
    params = [SamplingParams(min_frames=n, max_frames=n, seed=n, cfg_scale=1.0) for n in lengths]
    made = {answer.settings.seed: answer for _, answer in pipeline.run(Prompt("rain", each) for each in params)}
    assert [len(made[n].codes) for n in lengths] == list(lengths)


def test_what_cannot_be_streamed_is_one_sentence(pipeline, as_installed):
    with pytest.raises(UserError, match="chunk_frames must be at least 1, got 0"):
        pipeline.stream("rain", chunk_frames=0)
    with pytest.raises(UserError, match="first_chunk_frames must be a whole number, got 1.5"):
        pipeline.stream("rain", first_chunk_frames=1.5)
    stream = pipeline.stream("rain", seconds=0.1)
    assert len(list(stream))
    with pytest.raises(UserError, match="can be read once"):
        next(iter(stream))
    with pytest.raises(UserError, match="there is room for 256"):
        pipeline.generate("word " * 240, seconds=10)


@pytest.mark.slow
def test_five_minutes_take_no_more_memory_than_ten_seconds(pipeline):
    sizes = []
    for seconds in (10, 300):
        for chunk in pipeline.stream("rain", seconds=seconds, chunk_frames=250, cfg_scale=1.0):
            assert np.isfinite(chunk).all()
            held = sum(array.nbytes for array in jax.live_arrays())
        sizes.append(held)
    assert sizes[1] <= sizes[0]
