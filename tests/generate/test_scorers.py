"""What ranks candidates, and what happens to those that it cannot rank."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from ualm_jax.errors import UserError
from ualm_jax.generate.engine import Engine
from ualm_jax.generate.scorers import Likelihood, load_scorer, score_all
from ualm_jax.train.objectives.next_token import next_token


@pytest.fixture(scope="module")
def clips(pipeline):
    return pipeline.generate(["two beeps", "a drum, then rain", "two beeps"], seconds=0.3, seed=5)


def prompts_of(clips):
    return [clip.prompt for clip in clips]


def test_likelihood_is_minus_the_loss_of_training_on_the_answer(pipeline, clips):
    from ualm_jax.tokens.layout import build_grid
    from ualm_jax.tokens.types import Batch, Message, Modality, Role

    found = [score.value for score in score_all(Likelihood(pipeline), prompts_of(clips), clips)]
    for clip, value in zip(clips, found, strict=True):
        message = Message(Role.ASSISTANT, Modality.AUDIO, clip.codes)
        grid = build_grid([pipeline.text_message(clip.prompt), message], pipeline.model.architecture.vocabulary)
        T = len(grid.tokens)
        ones, positions = np.ones((1, T), np.int32), np.arange(T, dtype=np.int32)[None]
        batch = Batch(grid.tokens[None], grid.loss_weights[None], ones, positions)
        with jax.set_mesh(pipeline.mesh):
            loss = jax.jit(lambda model, batch: next_token(model, batch)["loss"].value())(pipeline.model, batch)
        assert value == pytest.approx(-float(loss), abs=1e-5) and value < 0


def test_the_right_text_is_likelier_than_a_shuffled_one(pipeline):
    (text,) = pipeline.generate(["two beeps"], modality="text", max_tokens=12)
    shuffled = dataclasses.replace(text, ids=np.random.default_rng(0).permutation(384)[: len(text.ids)])
    greedy, other = score_all(Likelihood(pipeline), ["two beeps"] * 2, [text, shuffled])
    assert greedy.value > other.value


def test_a_clip_that_cannot_be_scored_is_marked_and_the_others_go_on(clips, caplog):
    values = iter([1.0, math.nan, "good"])
    scores = score_all(lambda prompt, clip: next(values), prompts_of(clips), clips)
    assert [score.value for score in scores] == [1.0, None, None]
    assert "gave nan" in scores[1].problem and "gave 'good', which is no number" in scores[2].problem
    assert "2 of 3 clips have no score: the scorer gave nan" in caplog.text

    def picky(prompt, clip):
        if prompt != "two beeps":
            raise RuntimeError("no rain please")
        return np.float32(0.5)

    scores = score_all(picky, prompts_of(clips), clips)
    assert [score.value for score in scores] == [0.5, None, 0.5]
    assert scores[1].problem == "the scorer failed (RuntimeError: no rain please)"


def test_a_batch_that_fails_is_scored_one_by_one_and_said(clips, caplog):
    class Batched:
        calls = 0

        def batch(self, prompts, clips):
            self.calls += 1
            if len(clips) == 3:
                raise MemoryError("too many")
            return [2.0] * self.calls

        def __call__(self, prompt, clip):
            return 1.0

    scorer = Batched()
    assert [score.value for score in score_all(scorer, prompts_of(clips), clips)] == [1.0] * 3
    assert [score.value for score in score_all(scorer, prompts_of(clips[:2]), clips[:2])] == [2.0] * 2
    assert caplog.messages == ["the scorer's batch failed (MemoryError: too many); its answers are scored alone"]
    assert [score.value for score in score_all(scorer, prompts_of(clips[:2]), clips[:2])] == [1.0] * 2
    assert caplog.messages[1] == "the scorer gave 3 scores for 2 answers; they are scored alone"
    assert scorer.calls == 3


def test_candidates_are_ranked_and_each_is_what_its_seed_makes_alone(pipeline):
    how = dict(seconds=0.2, seed=3, negative_prompt="noise")
    groups = pipeline.best_of(["two beeps", "a drum"], 3, lambda prompt, clip: -clip.codes.sum(), **how)
    for first, group in zip((3, 6), groups, strict=True):
        sums = [-each.score.value for each in group]
        assert sums == sorted(sums) == [each.clip.codes.sum() for each in group]
        assert sorted(each.clip.seed for each in group) == [first, first + 1, first + 2]
        best = group[0].clip
        (alone,) = pipeline.generate([best.prompt], **how | {"seed": best.seed})
        np.testing.assert_array_equal(alone.codes, best.codes)


def test_candidates_are_made_from_one_prefill(pipeline, monkeypatch):
    read = []
    original = Engine._read_together

    def count(self, length, follows, by_shard, number):
        read.append([len(same) for shard in by_shard for same in shard])
        return original(self, length, follows, by_shard, number)

    monkeypatch.setattr(Engine, "_read_together", count)
    pipeline.best_of("two beeps", pipeline.slots, lambda prompt, clip: 0.0, seconds=0.1)
    assert sorted(sum(read, [])) == [3, 3]  # the prompt and the empty one, each read once for three slots


def test_no_scored_candidate_and_prompts_with_sounds_are_one_sentence(pipeline, clips):
    with pytest.raises(UserError, match="None of 2 candidates has a score: the scorer gave nan"):
        pipeline.best_of("two beeps", 2, lambda prompt, clip: math.nan, seconds=0.1)
    with pytest.raises(UserError, match="ranked by their prompt's text"):
        pipeline.best_of("two beeps", 2, lambda prompt, clip: 0.0, modality="text", sound=clips[0])
    with pytest.raises(UserError, match="count must be at least 1, got 0"):
        pipeline.best_of("two beeps", 0)


def test_scorers_are_found_by_name(pipeline, clips, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def length(prompt, clip):\n    return clip.seconds\nvalue = 3\n")
    monkeypatch.chdir(tmp_path)
    for name in ("mine:length", "mine.py:length", f"{tmp_path}/mine.py:length"):
        assert load_scorer(name, pipeline)("two beeps", clips[0]) == pytest.approx(0.3)
    assert isinstance(load_scorer("likelihood", pipeline), Likelihood)
    reason = score_all(load_scorer("soundscript", pipeline), ["a dog barks"], clips[:1])[0].problem
    assert "'a dog barks' is no caption of SoundScript" in reason
    for name, problem in {
        "clap": "no scorer 'clap'; give likelihood, soundscript, clap:DIR, audiobox:DIR, judge:DIR, module:function",
        "mine:volume": "mine has no function volume",
        "mine:value": "mine has no function value",
        "yours:length": "no module yours",
        "yours.py:length": "no file yours.py",
    }.items():
        with pytest.raises(UserError, match=problem):
            load_scorer(name, pipeline)
