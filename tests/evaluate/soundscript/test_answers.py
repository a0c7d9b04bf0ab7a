"""Answers are judged by what is true, kind by kind, for models and for what others said."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import golden_model
from helpers.audio_encoders import OMNI, random_encoder

from ualm_jax.audio.io import read_audio
from ualm_jax.cli.main import run
from ualm_jax.data.raw.soundscript.conversations import TASKS
from ualm_jax.data.raw.soundscript.words import save_tokenizer
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript.answers import answer_all, questions, right, shares
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.models.config import Architecture, DecoderConfig, Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.vocabulary import Vocabulary


@pytest.mark.parametrize("task", TASKS)
def test_the_true_answer_is_right_and_another_is_not(task):
    asked = questions(task, "combination", 20)
    assert all(right(question, question.answer) for question in asked)
    assert all(right(question, question.answer.upper()) for question in asked)
    assert not any(right(question, "nonsense") for question in asked)
    assert all((question.wav is None) == (TASKS[task][1] != "heard") for question in asked)
    short = questions(task, "train", 20, max_seconds=1.2)
    assert all(question.wav is None or len(question.wav) <= 1.2 * 16000 for question in short)


def test_a_rich_caption_is_right_however_it_is_laid_out():
    question = next(each for each in questions("listen", "train", 20) if each.answer.count(";") == 1)
    keywords, layout, description = question.answer.split("\n")
    assert right(question, f"{layout}\n**{description}\n{keywords.upper()}".replace("**D", "- D"))
    assert not right(question, f"{keywords}\n{description}")
    assert not right(question, question.answer.replace("= one", "= three").replace("= two", "= one"))


def test_an_open_prompt_accepts_any_answer_to_it():
    alarm = next(each for each in questions("imagine", "train", 60) if each.kind == "alarm")
    assert right(alarm, "Keywords: tone\nLayout: tone.\nDescription: tone = three, short, at b5.")
    assert not right(alarm, "Keywords: tone\nLayout: tone.\nDescription: tone = one, short, at b5.")
    assert not right(alarm, "Keywords: bell\nLayout: bell.\nDescription: bell = three.")


def test_shares_are_counted_kind_by_kind():
    asked = questions("question", "train", 60)
    said = [each.answer if each.kind == "count" else "nothing" for each in asked]
    found = shares(asked, said)
    counts = sum(each.kind == "count" for each in asked)
    assert list(found)[0] == "all" and (found["all"].right, found["all"].asked) == (counts, 60)
    assert found["count"].value == 1.0 and found["there"].value == 0.0


def test_a_model_is_asked_in_batches_that_change_nothing(golden_dir):
    model, tokenizer = golden_model.load(golden_dir), load_tokenizer(golden_dir / "qwen2")
    asked, params = questions("text", "train", 4), SamplingParams(max_tokens=5)
    together = list(answer_all(model, None, tokenizer, asked, params, batch_size=4))
    assert len(together) == 4
    assert together == list(answer_all(model, None, tokenizer, asked, params, batch_size=2))


def test_a_model_that_hears_is_asked_as_alone(tmp_path):
    encoder = random_encoder(OMNI)
    decoder = DecoderConfig(num_layers=2, width=32, num_heads=2, num_kv_heads=2, mlp_dim=64)
    save_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    config = Architecture(decoder, Vocabulary(tokenizer.size, 32), feature_width=encoder.output_width)
    model = jax.jit(lambda: UALM(config, Execution(compute_dtype="float32"), nnx.Rngs(0)))()
    asked, params = questions("question", "train", 3), SamplingParams(max_tokens=5)
    said = list(answer_all(model, encoder, tokenizer, asked, params))
    parts = dict(model=model, encoder=encoder, tokenizer=tokenizer)
    pipeline = Pipeline(mesh=jax.sharding.get_mesh(), **parts, slots=1, window=768)
    alone = [pipeline.ask(each.wav, each.turns[-1][1], max_tokens=5) for each in asked]
    assert said == alone


def test_sounds_need_an_encoder(golden_dir):
    model, tokenizer = golden_model.load(golden_dir), load_tokenizer(golden_dir / "qwen2")
    with pytest.raises(UserError, match="no audio encoder"):
        list(answer_all(model, None, tokenizer, questions("question", "train", 1), SamplingParams()))


def test_the_verb_judges_what_others_said(tmp_path, capsys):
    words = ["eval", "answers", "--task", "question", "--split", "phrasing", "--count", "12"]
    assert run([*words, "--export", str(tmp_path / "out")]) == 0
    exported = [json.loads(line) for line in (tmp_path / "out" / "questions.jsonl").read_text().splitlines()]
    asked = questions("question", "phrasing", 12)
    assert [each["id"] for each in exported] == [each.id for each in asked]
    assert [tuple(map(tuple, each["turns"])) for each in exported] == [each.turns for each in asked]
    wav = read_audio(tmp_path / "out" / exported[4]["wav"], sample_rate=16000)
    np.testing.assert_allclose(wav, asked[4].wav, atol=2e-4)

    said = tmp_path / "said.jsonl"
    said.write_text("".join(json.dumps({"id": q.id, "answer": q.answer}) + "\n" for q in asked[:9]))
    assert run([*words, "--answers", str(said), "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["tables"]["all"]["right"], result["tables"]["all"]["asked"]) == (9, 12)
    printed = capsys.readouterr()
    assert "75.0 %" in printed.out and f"3 of 12 answers are missing, such as {asked[9].id}" in printed.err

    said.write_text('{"answer": "two"}\n')
    assert run([*words, "--answers", str(said)]) == 1
    assert "line 1" in capsys.readouterr().err


def test_questions_are_the_same_for_every_count():
    few, more = questions("describe", "train", 2), questions("describe", "train", 5)
    assert [dataclasses.replace(q, wav=None).answer for q in few] == [q.answer for q in more[:2]]
