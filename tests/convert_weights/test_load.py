"""`ualm_jax.load` gives what lies at a path, ready to use, on the mesh that is set."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.conversions import save_omni, save_run

import ualm_jax
from ualm_jax.audio.io import read_audio
from ualm_jax.convert_weights.codec_and_encoder import import_encoder
from ualm_jax.convert_weights.qwen2 import import_qwen2
from ualm_jax.convert_weights.verify_run import _batch, _logits, _tokens
from ualm_jax.errors import UserError
from ualm_jax.parallel.mesh import MeshConfig, make_mesh


def text_logits(loaded):
    with jax.set_mesh(loaded.mesh):
        return _logits(loaded.model, _batch(_tokens(loaded.architecture, text_only=True)), True)


def test_import_leaves_jax_alone():
    code = "import sys, ualm_jax; assert 'jax' not in sys.modules; ualm_jax.load; assert 'jax' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_converted_checkpoint_gives_all_its_parts(trained):
    loaded = ualm_jax.load(trained)
    assert loaded.encoder is None
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("rain!")) == "rain!"
    codes = loaded.codec.encode(np.random.default_rng(0).standard_normal(3200).astype(np.float32))
    assert codes.shape == (10, 8) and loaded.architecture.vocabulary.num_codebooks == 8
    assert text_logits(loaded).shape == (2, 48, 384)


def test_a_hugging_face_directory_equals_its_conversion(golden_dir, base):
    straight, converted = ualm_jax.load(golden_dir / "qwen2"), ualm_jax.load(base)
    np.testing.assert_allclose(text_logits(straight), text_logits(converted), atol=1e-6)
    assert straight.codec is None and straight.tokenizer is not None


def test_a_run_is_loaded(base, tmp_path):
    save_run(base, tmp_path / "run")
    np.testing.assert_allclose(
        text_logits(ualm_jax.load(tmp_path / "run")), text_logits(ualm_jax.load(base)), atol=1e-6
    )


def test_codec_and_encoder_by_themselves(golden_dir, tmp_path):
    loaded = ualm_jax.load(golden_dir / "xcodec")
    assert loaded.codec.sample_rate == 16000 and loaded.model is None
    save_omni(tmp_path / "omni")
    import_encoder("omni-audio", tmp_path / "omni", tmp_path / "ours")
    for path in (tmp_path / "omni", tmp_path / "ours"):
        assert ualm_jax.load(path).encoder.output_width == 24


def test_an_encoder_laid_beside_sets_the_adapters_width(golden_dir, tmp_path):
    save_omni(tmp_path / "omni")
    import_encoder("omni-audio", tmp_path / "omni", tmp_path / "encoder")
    import_qwen2(golden_dir / "qwen2", tmp_path / "ours", encoder=tmp_path / "encoder")
    loaded = ualm_jax.load(tmp_path / "ours")
    assert loaded.architecture.feature_width == loaded.encoder.output_width == 24
    assert loaded.model.adapter.kernel.shape == (24, 64)


def test_an_encoder_hears_as_it_did_before_it_was_converted(golden_dir, tmp_path):
    save_omni(tmp_path / "omni")
    (tmp_path / "omni" / "settings.json").write_text('{"normalize": false, "max_seconds": 8.0}')
    import_encoder("omni-audio", tmp_path / "omni", tmp_path / "encoder")
    import_qwen2(golden_dir / "qwen2", tmp_path / "ours", encoder=tmp_path / "encoder")
    front_ends = [ualm_jax.load(tmp_path / name).encoder.front_end for name in ("omni", "encoder", "ours")]
    assert front_ends[0] == front_ends[1] == front_ends[2]
    assert (front_ends[0].normalize, front_ends[0].max_seconds) == (False, 8.0)


@pytest.mark.parametrize("what", ["converted", "hugging face"])
def test_arrays_lie_on_the_current_mesh(what, golden_dir, base):
    path = base if what == "converted" else golden_dir / "qwen2"
    alone = nnx.to_flat_state(nnx.state(ualm_jax.load(path).model, nnx.Param))
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        model = ualm_jax.load(path).model
        spread = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    assert model.text_head.sharding.shard_shape(model.text_head.shape) == (32, 320)
    for name, value in alone:
        assert len(spread[name].sharding.device_set) == 8
        assert np.array_equal(np.asarray(spread[name][...]), np.asarray(value[...])), name


def test_it_says_shortly_what_it_is(trained, golden_dir):
    assert "load" in dir(ualm_jax)
    loaded = ualm_jax.load(trained)
    assert repr(loaded).endswith("249,216 parameters, codec of 16000 Hz, tokenizer of 352 ids>")
    assert loaded.sample_rate == 16000 and loaded.step == 0
    assert ualm_jax.load(golden_dir / "xcodec").architecture is None


def test_a_step_is_of_a_run(base, tmp_path):
    save_run(base, tmp_path / "run")
    assert ualm_jax.load(tmp_path / "run", step=7).step == ualm_jax.load(tmp_path / "run").step == 7
    with pytest.raises(UserError, match="is not the --workdir of a run, so it has no step 7"):
        ualm_jax.load(base, step=7)


@pytest.mark.parametrize("url", ["gs:/bucket/run", "s3://bucket/run"])
def test_a_url_is_no_folder(url):
    with pytest.raises(UserError, match=f"{url}: expected a folder on this machine or gs://BUCKET/PATH"):
        ualm_jax.load(url)


def test_nothing_to_load(tmp_path):
    with pytest.raises(UserError, match="expected the --workdir of a run, a converted checkpoint or a Hugging Face"):
        ualm_jax.load(tmp_path)


def test_a_loaded_model_makes_a_sound_in_a_program_that_knows_of_no_mesh(trained, tmp_path):
    """The five lines of the documentation, in a program of its own."""
    code = f"""
import ualm_jax
model = ualm_jax.load({str(trained)!r}, int8=True, slots=1, window=128)
clips = model.generate(["two beeps, then a drum"], seconds=0.2, cfg_scale=3.0, seed=0)
clips[0].save({str(tmp_path / "out.wav")!r})
try:
    model.ask({str(tmp_path / "out.wav")!r}, "What do you hear?")
except ualm_jax.errors.UserError as error:
    print(error)
"""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert f"{trained} holds no encoder" in done.stdout
    assert len(read_audio(tmp_path / "out.wav", sample_rate=16000)) == 3200
