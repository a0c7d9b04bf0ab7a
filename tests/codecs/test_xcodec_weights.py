"""X-codec directories: HF's layouts in, HF's layout out, and clear words for broken ones."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import XcodecConfig as HFConfig
from transformers import XcodecModel

from ualm_jax.codecs.xcodec.config import XCodecConfig, read_config
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.weights import read_directory, save_directory
from ualm_jax.errors import UserError


@pytest.fixture
def copy(tiny_dir, tmp_path):
    return shutil.copytree(tiny_dir, tmp_path / "copy")


def change_weights(directory, change):
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def change_config(directory, **values):
    raw = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(raw | values))


def assert_same_params(ours, theirs, atol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), ours, theirs)


def test_hf_defaults_are_ours(tmp_path):
    HFConfig().save_pretrained(tmp_path)
    assert read_config(tmp_path / "config.json") == XCodecConfig()
    assert XCodecConfig().num_quantizers == HFConfig().num_quantizers == 8
    assert XCodecConfig().hop == HFConfig().hop_length == 320


def test_a_sparse_config_takes_hf_defaults(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "xcodec"}')
    assert read_config(tmp_path / "config.json") == XCodecConfig()


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    params = init_random(tiny_config(), seed=3)
    save_directory(params, tiny_config(), tmp_path)
    config, read = read_directory(tmp_path)
    assert config == tiny_config()
    assert_same_params(read, params)


def test_weights_in_float16_take_half_the_room_and_are_read_to_its_precision(tmp_path):
    params = init_random(tiny_config(), seed=3)
    save_directory(params, tiny_config(), tmp_path / "whole")
    save_directory(params, tiny_config(), tmp_path / "half", np.float16)
    _, read = read_directory(tmp_path / "half")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-9, atol=1e-7), read, params)
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.6 * whole


def test_transformers_loads_what_is_written_and_lacks_only_training_parts(tiny_dir):
    _, report = XcodecModel.from_pretrained(tiny_dir, output_loading_info=True)
    training = ("decoder_semantic.", "fc1.", "semantic_model.masked_spec_embed")
    statistics = ("inited", "cluster_size", "embed_avg")
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert all(key.startswith(training) or key.endswith(statistics) for key in report["missing_keys"])


def test_weight_normed_weights_are_read_as_folded_ones(hf, tiny_dir, tmp_path):
    model = XcodecModel.from_pretrained(tiny_dir)
    model.apply_weight_norm()
    model.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert "acoustic_decoder.block.0.conv_t1.parametrizations.weight.original0" in names
    assert_same_params(read_directory(tmp_path)[1], read_directory(tiny_dir)[1], atol=1e-6)


def test_old_weight_norm_names_are_read(tiny_dir, copy):
    def rename(tensors):
        root = "semantic_model.encoder.pos_conv_embed.conv."
        for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
            tensors[root + old] = tensors.pop(f"{root}parametrizations.weight.{new}")

    change_weights(copy, rename)
    assert_same_params(read_directory(copy)[1], read_directory(tiny_dir)[1])


def test_magnitudes_scale_their_directions(tiny_dir, copy):
    name = "semantic_model.encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    change_weights(copy, lambda tensors: tensors.update({name: 2 * tensors[name]}))
    kernel, doubled = (read_directory(d)[1]["hubert"]["position"]["kernel"] for d in (tiny_dir, copy))
    np.testing.assert_allclose(doubled, 2 * kernel, rtol=1e-6)


BROKEN = {
    "expected a tensor fc2.bias, found none": lambda t: t.pop("fc2.bias"),
    "found also surprise": lambda t: t.update(surprise=np.zeros(3, np.float32)),
    r"expected fc.bias with shape \(64,\), found \(3,\)": lambda t: t.update({"fc.bias": np.zeros(3, np.float32)}),
    "expected finite numbers in fc.bias": lambda t: t["fc.bias"].fill(np.nan),
    "expected fc.bias in float32 or float16, found float64": lambda t: t.update({"fc.bias": np.zeros(64)}),
    "expected magnitudes that match": lambda t: t.update(
        {"semantic_model.encoder.pos_conv_embed.conv.parametrizations.weight.original0": np.ones(3, np.float32)}
    ),
    "found also quantizer.quantizers.8.codebook.embed": lambda t: t.update(
        {"quantizer.quantizers.8.codebook.embed": np.zeros((64, 64), np.float32)}
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_wrong_tensor_is_named_with_its_file(copy, message):
    change_weights(copy, BROKEN[message])
    with pytest.raises(UserError, match=f"model.safetensors.*{message}"):
        read_directory(copy)


def test_training_only_tensors_are_skipped(copy, tiny_dir):
    extra = {"fc1.weight": np.zeros((2, 2), np.float32), "quantizer.quantizers.0.codebook.inited": np.ones(1)}
    change_weights(copy, lambda tensors: tensors.update(extra))
    assert_same_params(read_directory(copy)[1], read_directory(tiny_dir)[1])


def test_a_truncated_file_is_named(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match="model.safetensors.*cannot be read"):
        read_directory(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{name}: .*no such file"):
        read_directory(copy)


def test_a_config_that_is_no_json_is_named(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json: expected JSON"):
        read_directory(copy)


@pytest.mark.parametrize("content", ["[]", '{"format": "ualm-enhancer"}'])
def test_a_config_of_something_else_is_named(copy, content):
    (copy / "config.json").write_text(content)
    with pytest.raises(UserError, match="config.json: expected the configuration of an X-codec"):
        read_directory(copy)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"model_type": "encodec"}, "model_type must be 'xcodec', found 'encodec'"),
        ({"semantic_model_config": {"model_type": "wavlm"}}, "model_type must be 'hubert', found 'wavlm'"),
        ({"semantic_model_config": {"feat_extract_norm": "layer"}}, "feat_extract_norm must be 'group'"),
        ({"codebook_size": "many"}, "codebook_size must be positive, found 'many'"),
        ({"sample_rate": -1}, "sample_rate must be positive, found -1"),
        ({"block_dilations": [1, None]}, "block_dilations must be positive numbers"),
        ({"strides": [1, 2]}, "channel_ratios and strides all 1"),
        ({"target_bandwidths": [4, 2]}, "must end with the largest"),
        ({"target_bandwidths": [0.1]}, "too small for one codebook"),
        ({"codebook_dim": 8}, "codebook_dim must be 64, found 8"),
        ({"acoustic_model_config": {"downsampling_ratios": [2, 4]}}, "must have one product"),
        ({"semantic_model_config": {"num_attention_heads": 5}}, "must be a multiple of num_attention_heads"),
    ],
)
def test_a_config_for_another_codec_is_refused(copy, values, message):
    change_config(copy, **values)
    with pytest.raises(UserError, match=f"config.json: .*{message}"):
        read_directory(copy)
