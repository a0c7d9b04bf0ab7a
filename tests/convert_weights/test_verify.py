"""`ualm convert verify` passes what is right, and finds one wrong bit, one missing tensor, one wrong setting."""

import json
import shutil

import numpy as np
import pytest
import tensorstore as ts
from helpers import random_qwen2
from helpers.conversions import save_omni

from ualm_jax.cli.main import run
from ualm_jax.convert_weights import verify_run
from ualm_jax.convert_weights.codec_and_encoder import import_encoder, import_xcodec
from ualm_jax.convert_weights.qwen2 import import_qwen2
from ualm_jax.convert_weights.verify import Report, Row, verify
from ualm_jax.convert_weights.verify_run import _agreement, _kl
from ualm_jax.models.hf_names import QWEN2
from ualm_jax.weights.hf_folder import open_directory


@pytest.fixture
def spoilt(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "spoilt")


def test_a_text_model_passes(golden_dir, base):
    report = verify(golden_dir / "qwen2", base)
    assert report.passed and report.tensors == 39
    names = [row.name for row in report.rows]
    assert names[:6] == ["embedding", "layer 0", "layer 1", "layer 2", "norm", "logits, end to end"]


def test_a_tied_model_in_bfloat16_passes(tmp_path):
    """transformers ties the head; we hold it twice."""
    source = random_qwen2.save_tiny(tmp_path / "source", tied=True, dtype="bfloat16", max_shard_size="20KB")
    import_qwen2(source, tmp_path / "ours")
    report = verify(source, tmp_path / "ours")
    assert report.passed and report.rows[-3].name == "KL per token, largest"


def test_a_reference_checkpoint_passes_with_its_codec(golden_dir, trained):
    report = verify(golden_dir / "checkpoints", trained)
    assert report.passed and report.tensors > 39 + 4 + 200
    assert "adapter" in [row.name for row in report.rows]


@pytest.mark.slow  # its programs take long to compile
def test_a_codec_passes(golden_dir, tmp_path):
    import_xcodec(golden_dir / "xcodec", tmp_path / "ours")
    report = verify(golden_dir / "xcodec", tmp_path / "ours")
    assert report.passed and len(report.rows) == 2


@pytest.mark.parametrize("importer", ["omni-audio", "af-whisper"])
def test_an_audio_encoder_passes(importer, tmp_path):
    save = {"omni-audio": save_omni, "af-whisper": save_af_whisper}[importer]
    save(tmp_path / "source")
    import_encoder(importer, tmp_path / "source", tmp_path / "ours")
    report = verify(tmp_path / "source", tmp_path / "ours")
    assert report.passed and len(report.rows) == 1 and report.tensors > 20


def save_af_whisper(directory):
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration

    audio = dict(model_type="audioflamingo3_encoder", num_hidden_layers=2, hidden_size=16)
    audio |= dict(num_attention_heads=2, intermediate_size=32, max_source_positions=40)
    text = dict(model_type="qwen2", hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    text |= dict(num_key_value_heads=2, intermediate_size=32, vocab_size=40)
    config = AudioFlamingo3Config(audio_config=audio, text_config=text, audio_token_id=1)
    AudioFlamingo3ForConditionalGeneration(config).save_pretrained(directory)


def test_one_wrong_bit_is_found(golden_dir, spoilt):
    path = spoilt / "params" / "decoder.layers.mlp.up"
    store = ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}).result()
    layer = np.array(store[1].read().result())
    layer.view(np.uint32)[3, 5] ^= 1
    store[1].write(layer).result()
    report = verify(golden_dir / "checkpoints", spoilt)
    assert report.problems == ["tensor model.layers.1.mlp.up_proj.weight differs in 1 of 40960 bytes"]
    assert not report.rows and "the tensors differ" in report.skipped


def wrong_setting(converted, directory):
    """A copy whose card states another epsilon: tensors say nothing of such."""
    copy = shutil.copytree(converted, directory)
    card = json.loads((copy / "ualm.json").read_text())
    card["model"]["decoder"]["norm_eps"] = 1e-3
    (copy / "ualm.json").write_text(json.dumps(card))
    return copy


def test_a_wrong_setting_is_found(golden_dir, base, trained, tmp_path):
    text, reference = wrong_setting(base, tmp_path / "text"), wrong_setting(trained, tmp_path / "reference")
    for source, copy in ((golden_dir / "qwen2", text), (golden_dir / "checkpoints", reference)):
        report = verify(source, copy, base=golden_dir / "qwen2", run=False)
        assert len(report.problems) == 1 and "norm_eps=0.001" in report.problems[0]


def test_running_finds_what_tensors_do_not_say(golden_dir, base, tmp_path):
    copy = wrong_setting(base, tmp_path / "copy")
    rows = verify_run.language_model(golden_dir / "qwen2", copy, "qwen2", open_directory(golden_dir / "qwen2"), QWEN2)
    assert {row.name for row in rows if not row.passed} >= {"layer 0", "norm", "logits, end to end"}


def test_another_source_is_found(golden_dir, spoilt):
    card = json.loads((spoilt / "ualm.json").read_text())
    card["source"]["sha256"] = {name: "0" * 64 for name in card["source"]["sha256"]}
    (spoilt / "ualm.json").write_text(json.dumps(card))
    report = verify(golden_dir / "checkpoints", spoilt, run=False)
    assert len(report.problems) == 1 and "has another SHA-256" in report.problems[0]


def test_the_exit_status_says_pass_or_fail(golden_dir, trained, spoilt, capsys, monkeypatch):
    # The command would leave this process with one CPU device.
    monkeypatch.setattr("ualm_jax.parallel.startup.start", lambda **options: None)
    arguments = ["convert", "verify", str(golden_dir / "checkpoints")]
    assert run([*arguments, str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "every one equal byte by byte" in shown and "top-5 agreement" in shown and "PASS" in shown
    shutil.rmtree(spoilt / "params" / "adapter.bias")
    assert run([*arguments, str(spoilt), "--tensors-only"]) == 1
    assert "params/adapter.bias/zarr.json is missing" in capsys.readouterr().err


def test_numbers_that_are_not_numbers_fail():
    assert not Row("logits", float("nan"), 1.0).passed
    assert Row("top-5 agreement", 0.3, None).passed
    assert not Report(rows=[Row("logits", 2.0, 1.0)]).passed


def test_kl_and_agreement_are_what_they_say():
    hf = np.log(np.array([[0.5, 0.25, 0.25, 1e-9, 1e-9, 1e-9]]))
    ours = np.log(np.array([[0.25, 0.5, 0.25, 1e-9, 1e-9, 1e-9]]))
    np.testing.assert_allclose(_kl(hf, ours), [0.25 * np.log(2)], rtol=1e-6)
    assert _agreement(hf, ours) >= 0.6
    assert _agreement(np.arange(10.0)[None], np.roll(np.arange(10.0), 5)[None]) == 0
