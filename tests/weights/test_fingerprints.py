"""Tokenizers, codecs and encoders are the same where ids, codes and features are, however they were written."""

import json
import shutil

import numpy as np
import pytest
from helpers.conversions import save_omni
from safetensors.numpy import load_file, save_file

from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.convert_weights.codec_and_encoder import import_encoder, import_xcodec
from ualm_jax.errors import UserError
from ualm_jax.tokens.tokenizer import save_byte_tokenizer
from ualm_jax.weights.fingerprints import check_together, fingerprints, parts_of


@pytest.fixture(scope="module")
def parts(tmp_path_factory, golden_dir):
    folder = tmp_path_factory.mktemp("parts")
    save_byte_tokenizer(folder / "tokenizer")
    shutil.copytree(golden_dir / "xcodec", folder / "codec")
    save_omni(folder / "encoder")
    return folder


def same(one, other):
    return fingerprints(one) == fingerprints(other)


def test_a_conversion_keeps_codec_and_encoder(parts, tmp_path):
    """The codec keeps tensors that only training uses or not; the encoder leaves the model around it."""
    import_xcodec(parts / "codec", tmp_path / "codec")
    import_encoder("omni-audio", parts / "encoder", tmp_path / "encoder")
    for name in ("codec", "encoder"):
        assert same({name: parts / name}, parts_of(tmp_path / name))


def test_a_rewritten_tokenizer_is_the_same(parts, tmp_path):
    copy = shutil.copytree(parts / "tokenizer", tmp_path / "tokenizer")
    content = json.loads((copy / "tokenizer.json").read_text())
    content["truncation"], content["padding"] = None, None
    content["model"]["dropout"] = None
    content["added_tokens"].append({"id": 256, "content": "<|endoftext|>", "special": True})
    (copy / "tokenizer.json").write_text(json.dumps(content, indent=1))
    (copy / "tokenizer_config.json").unlink()
    assert same({"tokenizer": parts / "tokenizer"}, {"tokenizer": copy})


def change_tokenizer(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def change_tensor(file, name):
    tensors = load_file(file)
    tensors[name] = np.nextafter(tensors[name], np.float32(9))
    save_file(tensors, file)


CHANGES = {
    "tokenizer": change_tokenizer,
    "codec": lambda folder: change_tensor(folder / "model.safetensors", "fc.bias"),
    "encoder": lambda folder: change_tensor(
        folder / "model-00001-of-00002.safetensors", "thinker.audio_tower.conv1.bias"
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_smallest_difference_is_one(name, parts, tmp_path):
    shutil.copytree(parts, tmp_path / "other")
    check_together(parts_of(parts), parts_of(tmp_path / "other"))
    CHANGES[name](tmp_path / "other" / name)
    with pytest.raises(UserError, match=f"parts./{name} and .*other/{name} are different {name}s"):
        check_together(parts_of(parts), parts_of(tmp_path / "other"))


def test_only_what_both_have_is_compared(parts, golden_dir):
    assert parts_of(golden_dir / "qwen2").keys() == {"tokenizer"}
    check_together({"codec": parts / "codec"}, parts_of(golden_dir / "qwen2"))


def test_a_random_codec_saved_and_read_is_itself(tmp_path):
    for name in ("one", "two"):
        save_directory(init_random(tiny_config(), 3), tiny_config(), tmp_path / name)
    assert same({"codec": tmp_path / "one"}, {"codec": tmp_path / "two"})
