"""From prompts to pairs: answers sampled and scored by a small model, whatever interrupts it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers import golden_model

from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.dataset.pairs import conversations_of
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.errors import UserError
from ualm_jax.generate.jobs_items import Item
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.prefer.build import build
from ualm_jax.prefer.samples import Sampling, read_samples
from ualm_jax.prefer.select import Selection
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Modality

ITEMS = [Item(f"{index:05}", text) for index, text in enumerate(["two beeps", "a drum", "rain", "a bell, then rain"])]
BEST_AND_WORST = Selection()
SAMPLING = Sampling(count=3, seconds=0.2, seed=7, shard_size=2)


def high(prompt, clip):
    """Codes of the first codebook, on average."""
    return clip.codes[:, 0].mean()


def moody(prompt, clip):
    """Fails for one prompt, and has no number for some answers of another."""
    if prompt == "a drum":
        raise RuntimeError("no drums please")
    return np.nan if prompt == "rain" and clip.seed % 3 == 0 else -float(clip.codes[:, 1].mean())


@pytest.fixture(scope="module")
def folders(golden_dir):
    return {"tokenizer": golden_dir / "qwen2", "codec": golden_dir / "xcodec"}


@pytest.fixture(scope="module")
def pipeline(folders, golden_dir) -> Pipeline:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        model = golden_model.load(golden_dir)
    parts = dict(codec=XCodec.from_directory(folders["codec"]), tokenizer=load_tokenizer(folders["tokenizer"]))
    return Pipeline(mesh=mesh, model=model, **parts, slots=3, window=128, made_by=MadeBy("golden", 100))


@pytest.fixture(scope="module")
def run(pipeline, folders):
    def run(out, items=ITEMS, sampling=SAMPLING, scorers=None, selection=BEST_AND_WORST):
        scorers = {"high": high} if scorers is None else scorers
        return build(pipeline, items, sampling, scorers, selection, out, folders=folders)

    return run


@pytest.fixture(scope="module")
def built(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("prefer") / "built"
    return out, run(out)


def test_each_prompt_gives_its_best_and_its_worst_answer(built, pipeline):
    out, found = built
    assert (found["prompts"], found["answers"], found["pairs"], found["winners"]) == (4, 12, 4, 4)
    records = list(open_records(open_dataset(out / "pairs")))
    for record, item, asked in zip(records, ITEMS, read_samples(out), strict=True):
        assert (record.id, record.caption) == (item.id, item.prompt) == (asked.id, asked.prompt)
        scores = [sample.content[:, 0].mean() for sample in asked.samples]
        np.testing.assert_allclose([sample.scores["high"] for sample in asked.samples], scores)
        prompt, *_ = record.messages
        assert pipeline.tokenizer.decode(prompt.content.tolist()) == item.prompt
        for conversation, place in zip(conversations_of(record), (np.argmax(scores), np.argmin(scores)), strict=True):
            np.testing.assert_array_equal(conversation.messages[1].content, asked.samples[place].content)
        assert record.scene["chosen"]["scores"]["high"] > record.scene["rejected"]["scores"]["high"]
    winners = list(open_records(open_dataset(out / "winners")))
    for winner, record in zip(winners, records, strict=True):
        assert winner.pair is None and winner.messages[1].learn
        np.testing.assert_array_equal(winner.messages[1].content, record.messages[1].content)


def test_both_datasets_can_be_trained_on(built, pipeline):
    vocabulary = pipeline.model.architecture.vocabulary
    for name in ("pairs", "winners"):
        config = DataConfig(directory=str(built[0] / name), seq_len=128, batch_size=1, packing_bins=1)
        loader = make_loader(config, vocabulary)
        batch, _ = next(loader)
        loader.close()
        assert (batch.reference is not None) == (name == "pairs") and batch.segment_ids.max() >= 1


def test_an_answer_can_be_made_again_alone(built, pipeline):
    sample = next(read_samples(built[0])).samples[2]
    (clip,) = pipeline.generate([ITEMS[0].prompt], seconds=0.2, seed=sample.seed)
    np.testing.assert_array_equal(clip.codes, sample.content)


def test_the_report_can_be_read_seen_and_heard(built):
    folder = built[0] / "report"
    assert json.loads((folder / "report.json").read_text()) == built[1]
    text = (folder / "report.md").read_text()
    assert "two beeps" in text and "| pairs | 4 |" in text
    assert {"00000-chosen.wav", "00003-rejected.wav", "scores.png"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_what_was_interrupted_goes_on_to_the_same_datasets(built, run, pipeline, tmp_path, monkeypatch, stop):
    whole, calls = Pipeline.run, []

    def stopping(self, prompts):
        for done, answer in enumerate(whole(self, prompts)):
            if len(calls) == stop and done == 4:
                calls.append(None)
                raise KeyboardInterrupt
            yield answer
        calls.append(None)

    monkeypatch.setattr(Pipeline, "run", stopping)
    if stop == 2:  # after the samples
        monkeypatch.setattr("ualm_jax.prefer.build.write_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    monkeypatch.undo()
    assert run(tmp_path / "out") == built[1]
    for name in ("pairs", "winners"):
        assert open_dataset(tmp_path / "out" / name).key == open_dataset(built[0] / name).key


def test_other_bounds_make_other_pairs_of_the_same_answers(run, built, tmp_path, monkeypatch):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(built[0], out)
    monkeypatch.setattr(Pipeline, "run", lambda *_: pytest.fail("answers are made again"))
    scores = [record.scene["chosen"]["scores"]["high"] for record in open_records(open_dataset(out / "pairs"))]
    bound = sorted(scores)[2]
    found = run(out, selection=Selection(chosen_at_least={"high": bound}))
    assert found["pairs"] == found["winners"] == 2 and found["dropped"] == {"below": 2}
    assert run(out) == built[1] and open_dataset(out / "pairs").key == open_dataset(built[0] / "pairs").key
    with pytest.raises(UserError, match="no pairs are left .4 x too close.; .*let thresholds pass more"):
        run(out, selection=Selection(margin=1e9))
    assert run(out) == built[1]


def test_an_answer_that_a_scorer_cannot_judge_is_left_out_and_counted(run, tmp_path):
    selection = Selection(weights={"moody": 0.01})
    found = run(tmp_path / "out", scorers={"high": high, "moody": moody}, selection=selection)
    assert found["dropped"] == {"no score": 4, "one answer": 1} and found["pairs"] == 3
    assert any("no drums please" in problem for problem in found["problems"])
    assert any("moody: the scorer gave nan" in problem for problem in found["problems"])
    ids = [record.id for record in open_records(open_dataset(tmp_path / "out" / "pairs"))]
    assert ids == ["00000", "00002", "00003"]


def test_texts_are_answers_too(run, tmp_path):
    texts = dataclasses.replace(SAMPLING, modality="text", seconds=None, settings={"max_tokens": 6, "temperature": 1.5})
    found = run(tmp_path / "out", sampling=texts, scorers={"length": lambda prompt, text: float(np.sum(text.ids % 7))})
    assert found["pairs"] > 0
    record = open_records(open_dataset(tmp_path / "out" / "pairs"))[0]
    assert {message.modality for message in record.messages} == {Modality.TEXT}
    assert "- chosen (length" in (tmp_path / "out" / "report" / "report.md").read_text()


def test_answers_of_another_job_are_refused(run, built):
    for change, name in (
        (dict(items=ITEMS[:2]), "prompts"),
        (dict(sampling=dataclasses.replace(SAMPLING, seed=8)), "sampling"),
        (dict(scorers={"low": high}), "scorers"),
    ):
        with pytest.raises(UserError, match=f"was begun with other {name}; finish it with what began it"):
            run(built[0], **change)
    with pytest.raises(UserError, match="name at least one scorer"):
        run(built[0], scorers={})
