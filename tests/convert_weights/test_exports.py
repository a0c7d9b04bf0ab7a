"""Exports are read by the programs they are for, and compute what the model computes."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import ualm_jax
from ualm_jax.convert_weights.ours import export_ours
from ualm_jax.convert_weights.qwen2 import export_hf
from ualm_jax.convert_weights.verify_run import STEPS, _batch, _logits, _tokens
from ualm_jax.weights.opener import open_weights


@pytest.mark.parametrize("vocabulary", ["text", "extended"])
def test_transformers_loads_the_export_and_computes_the_same(vocabulary, trained, tmp_path):
    checkpoint = open_weights(trained)
    export_hf(checkpoint, tmp_path / "hf", vocabulary=vocabulary)
    hf, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32, output_loading_info=True)
    assert not any(loading.values())
    tokens = _tokens(checkpoint.architecture, text_only=True)
    first = checkpoint.architecture.vocabulary.text_start if vocabulary == "text" else 0
    with torch.inference_mode():
        expected = hf(torch.from_numpy(tokens[..., 0] - first).long()).logits.numpy()
    loaded = ualm_jax.load(trained)
    loaded.model.execution = dataclasses.replace(loaded.model.execution, compute_dtype="float32")
    ours = _logits(loaded.model, _batch(tokens), vocabulary == "text")
    np.testing.assert_allclose(ours if vocabulary == "text" else ours[:, :, 0], expected, atol=1e-4)
    assert expected.shape == (2, STEPS, 384 if vocabulary == "text" else 904)


def test_the_extended_vocabulary_is_explained(trained, tmp_path, expected):
    export_hf(open_weights(trained), tmp_path / "hf", vocabulary="extended")
    ids = json.loads((tmp_path / "hf" / "vocabulary.json").read_text())
    assert ids["size"] == 904 and ids["intervals"]["text"] == [[256, 640]]
    assert not (tmp_path / "hf" / "tokenizer.json").exists()  # its ids would mean other rows


def test_a_text_export_brings_its_tokenizer(base, tmp_path):
    export_hf(open_weights(base), tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.decode(tokenizer.encode("a sound!")) == "a sound!"


def test_generation_settings_survive(golden_dir, base, tmp_path):
    export_hf(open_weights(base), tmp_path / "hf")
    before, after = (json.loads((d / "config.json").read_text()) for d in (golden_dir / "qwen2", tmp_path / "hf"))
    for name in ("max_position_embeddings", "rms_norm_eps", "rope_parameters", "vocab_size", "num_key_value_heads"):
        assert before[name] == after[name]


def test_the_card_says_what_it_is(trained):
    card = json.loads((trained / "ualm.json").read_text())
    assert card["kind"] == "ualm" and card["source"]["importer"] == "ualm-reference"
    assert card["vocabulary"]["intervals"]["special_token"] == [[0, 256]]
    assert len(next(iter(card["source"]["sha256"].values()))) == 64
    readme = (trained / "README.md").read_text()
    for word in ("249,216 parameters", "904 ids", "Licence", "mp_rank_00_model_states.pt"):
        assert word in readme


def test_our_own_format_holds_the_same_model_and_its_parts(trained, tmp_path):
    weights = open_weights(trained)
    export_ours(weights, tmp_path / "same")
    given = open_weights(tmp_path / "same")
    assert given.architecture == weights.architecture
    assert set(given.parts) == set(weights.parts)
    left, right = weights.arrays(), given.arrays()
    for path in left.paths:
        assert left.dtype(path) == right.dtype(path)
        np.testing.assert_array_equal(left.read(path), right.read(path))


def test_our_own_format_can_be_rounded(trained, tmp_path):
    export_ours(open_weights(trained), tmp_path / "half", dtype="bfloat16")
    half, whole = open_weights(tmp_path / "half"), open_weights(trained).arrays()
    assert half.execution.param_dtype == "bfloat16"
    for path in whole.paths:
        np.testing.assert_array_equal(half.arrays().read(path), whole.read(path).astype(ml_dtypes.bfloat16))
