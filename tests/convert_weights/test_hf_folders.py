"""A folder that Hugging Face's tools left means here what it means to `transformers`, or is refused in a sentence."""

import json
import shutil

import jax
import numpy as np
import pytest
import torch
from helpers import random_qwen2
from helpers.conversions import save_run
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.convert_weights.ours_to_hf import read_hf
from ualm_jax.convert_weights.qwen2 import export_hf, import_qwen2
from ualm_jax.convert_weights.verify import verify
from ualm_jax.errors import UserError
from ualm_jax.models.hf_names import QWEN2
from ualm_jax.tokens.tokenizer import load_tokenizer, save_byte_tokenizer
from ualm_jax.tokens.vocabulary import EOS, EOT
from ualm_jax.weights.hf_config import read_qwen2
from ualm_jax.weights.hf_qwen2 import Extension
from ualm_jax.weights.opener import open_weights

SMALL = Extension(codebook_size=12, num_codebooks=4)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return random_qwen2.save_tiny(tmp_path_factory.mktemp("qwen2") / "source")


@pytest.fixture
def source(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "source")


def change_json(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def agrees(folder, out):
    """Whether all that transformers loads of `folder` comes out of our conversion of it."""
    import_qwen2(folder, out, extension=SMALL)
    weights = open_weights(out)
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    arrays = weights.arrays()
    found = {name: read_hf(QWEN2, weights.architecture, arrays, name) for name in expected}
    report = verify(folder, out, run=False)
    return report.passed and all(
        np.array_equal(found[name].astype(np.float32), expected[name].numpy()) for name in expected
    )


def refuses(folder, out, match):
    with pytest.raises(UserError, match=match) as caught:
        import_qwen2(folder, out, extension=SMALL)
    assert "\n" not in str(caught.value) and not out.exists()


SETS = {"single": 1.0, "shards": 2.0, "bin": 3.0, "bin shards": 4.0}


def lay(folder, kind):
    """One set of weights; the sets differ in scale."""
    tensors = load_file(folder / "pristine.safetensors")
    tensors = {name: value * SETS[kind] for name, value in tensors.items()}
    half = len(tensors) // 2
    parts = [dict(list(tensors.items())[:half]), dict(list(tensors.items())[half:])]
    stem, end = ("pytorch_model", "bin") if "bin" in kind else ("model", "safetensors")

    def save(values, name):
        torch.save(values, folder / name) if "bin" in kind else save_file(values, folder / name, {"format": "pt"})

    if "shards" not in kind:
        return save(tensors, f"{stem}.{end}")
    weight_map = {}
    for number, values in enumerate(parts, start=1):
        name = f"{stem}-{number:05}-of-00002.{end}"
        save(values, name)
        weight_map |= dict.fromkeys(values, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "sets",
    [
        ("single", "shards"),
        ("shards", "bin"),
        ("single", "bin"),
        ("shards", "bin shards"),
        ("bin", "bin shards"),
        ("bin shards",),
        ("single", "shards", "bin", "bin shards"),
    ],
)
def test_of_several_sets_of_weights_the_same_one_is_taken(sets, source, tmp_path, caplog):
    (source / "model.safetensors").rename(source / "pristine.safetensors")
    for kind in sets:
        lay(source, kind)
    (source / "pristine.safetensors").unlink()
    assert agrees(source, tmp_path / "ours")
    assert ("beside it are not" in caplog.text) == (len(sets) > 1)


def test_an_index_without_its_shards_beside_the_single_file(source, tmp_path):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00009.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    assert agrees(source, tmp_path / "ours")


def test_shards_without_an_index_are_named(source, tmp_path):
    (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")
    refuses(source, tmp_path / "ours", "no weights here, .*, found model-00001-of-00001.safetensors, which no index")


def test_a_tensor_in_two_shards_is_refused(source, tmp_path):
    (source / "model.safetensors").rename(source / "pristine.safetensors")
    lay(source, "shards")
    shard = source / "model-00002-of-00002.safetensors"
    save_file(load_file(shard) | {"lm_head.weight": torch.zeros(96, 32)}, shard)
    refuses(source, tmp_path / "ours", "tensor lm_head.weight is in model-00001-of-00002.safetensors too")


@pytest.mark.parametrize("own", [True, False])
def test_a_tied_model_with_a_head_in_its_files(own, source, tmp_path, caplog):
    """Tools that train the head leave the old `tie_word_embeddings`; transformers takes what is stored."""
    change_json(source / "config.json", tie_word_embeddings=True)
    if not own:
        tensors = load_file(source / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, source / "model.safetensors", {"format": "pt"})
    assert agrees(source, tmp_path / "ours")
    assert open_weights(tmp_path / "ours").notes["tied"] != own and ("has a head of its own" in caplog.text) == own
    export_hf(open_weights(tmp_path / "ours"), tmp_path / "back")
    assert read_qwen2(tmp_path / "back").tied != own


LINEAR = {"factor": 8.0}
ROPES = [
    {"rope_theta": 7e5},
    {"rope_theta": 7e5, "rope_scaling": None},
    {"rope_theta": 7e5, "rope_scaling": {"type": "default"}},
    {"rope_theta": 7e5, "rope_scaling": {"rope_type": "default", "rope_theta": 3e5}},
    {"rope_theta": 7e5, "rope_scaling": {"type": "linear", **LINEAR}},
    {"rope_theta": 7e5, "rope_scaling": {"rope_type": "linear", **LINEAR}},
    {"rope_theta": 7e5, "rope_scaling": {"rope_type": "default", "type": "linear", **LINEAR}},
    {"rope_theta": 7e5, "rope_scaling": {"rope_type": "linear", "type": "default", **LINEAR}},
    {"rope_theta": 7e5, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    {"rope_theta": 7e5, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    {"rope_theta": 7e5, "rope_scaling": {"type": "linear", **LINEAR}, "rope_parameters": {"rope_type": "default"}},
    {"rope_theta": 7e5, "rope_scaling": {}, "rope_parameters": {"rope_type": "default", "rope_theta": 2e5}},
    {"rope_parameters": {"rope_theta": 7e5, "rope_type": "default"}},
    {"rope_parameters": {"rope_theta": 7e5, "type": "linear", **LINEAR}},
    {"rope_parameters": {"rope_theta": 7e5, "rope_type": "yarn", "factor": 4.0}},
    {"rope_parameters": {"rope_theta": 7e5}},
    {"rope_parameters": {"full_attention": {"rope_theta": 7e5, "rope_type": "default"}}},
    {"rope_parameters": {"full_attention": {"rope_theta": 7e5, "type": "linear", **LINEAR}}},
    {"rope_parameters": None},
]


@pytest.mark.parametrize("fields", ROPES, ids=lambda fields: json.dumps(fields)[:70])
def test_positions_are_those_of_transformers_in_every_spelling(fields, source):
    config = json.loads((source / "config.json").read_text())
    config = {name: value for name, value in config.items() if "rope" not in name} | fields
    (source / "config.json").write_text(json.dumps(config))
    hf = AutoConfig.from_pretrained(source).rope_parameters
    hf = hf.get("full_attention", hf)
    if hf["rope_type"] == "default":
        assert read_qwen2(source).decoder.rope_theta == hf["rope_theta"]
    else:
        with pytest.raises(UserError, match=rf"config.json: rope_.*must be 'default', found '{hf['rope_type']}'"):
            read_qwen2(source)


@pytest.mark.parametrize(
    "fields, match",
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types must all be 'full_attention'"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantization_config must be None"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1.0"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers must be a positive whole number, found '2'"),
        ({"rope_theta": "many", "rope_parameters": None}, "rope_theta must be a positive number"),
    ],
)
def test_what_is_not_computed_is_refused(fields, match, source, tmp_path):
    change_json(source / "config.json", **fields)
    refuses(source, tmp_path / "ours", match)


@pytest.mark.parametrize("wide", ["model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_tensors_of_several_dtypes_keep_every_number(wide, source, tmp_path):
    """As peft leaves a model of which it trained a part in float32."""
    tensors = {name: value.bfloat16() for name, value in load_file(source / "model.safetensors").items()}
    tensors[wide] = tensors[wide].float() + 1e-4
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    assert agrees(source, tmp_path / "ours")
    assert open_weights(tmp_path / "ours").execution.param_dtype == "float32"


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before torch 1.6"])
def test_torch_files_of_both_formats(archive, source, tmp_path):
    tensors = load_file(source / "model.safetensors")
    tensors = {name: torch.nn.Parameter(value) for name, value in tensors.items()}
    torch.save(tensors, source / "pytorch_model.bin", _use_new_zipfile_serialization=archive)
    (source / "model.safetensors").unlink()
    assert agrees(source, tmp_path / "ours")
    (source / "pytorch_model.bin").write_bytes((source / "pytorch_model.bin").read_bytes()[:900])
    shutil.rmtree(tmp_path / "ours")
    refuses(source, tmp_path / "ours", "pytorch_model.bin: torch cannot read it, it is damaged or cut short")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_beside_the_base_is_not_passed_over(name, source, tmp_path):
    (source / name).write_text("{}")
    refuses(source, tmp_path / "ours", f"{name}: an adapter lies here")


def test_a_tokenizer_without_its_configuration_is_taken(source, tmp_path):
    save_byte_tokenizer(tmp_path / "tokenizer")
    shutil.copy(tmp_path / "tokenizer" / "tokenizer.json", source)
    change_json(source / "config.json", vocab_size=256)
    refuses(source, tmp_path / "ours", "has shape")  # the table has fewer rows
    change_json(source / "config.json", vocab_size=96)
    refuses(source, tmp_path / "ours", "the tokenizer has ids up to 255, but the model's text table has 96 rows")


@pytest.fixture(scope="module")
def conversation_model(tmp_path_factory):
    """A text model of bytes with settings for generation, converted with a codec."""
    folder = tmp_path_factory.mktemp("settings")
    source = random_qwen2.save_tiny(folder / "source", text_size=256)
    save_byte_tokenizer(source)
    change_json(source / "config.json", max_position_embeddings=131072, eos_token_id=2, bos_token_id=1)
    settings = {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 3, "temperature": 0.7, "do_sample": True}
    (source / "generation_config.json").write_text(json.dumps(settings))
    save_directory(init_random(tiny_config(), 0), tiny_config(), folder / "codec")
    import_qwen2(source, folder / "ours", codec=folder / "codec")
    return folder


def test_settings_for_generation_are_carried_along(conversation_model, tmp_path):
    export_hf(open_weights(conversation_model / "ours"), tmp_path / "hf")
    config = AutoConfig.from_pretrained(tmp_path / "hf")
    assert config.max_position_embeddings == 131072 and config.eos_token_id == 2
    before, after = map(GenerationConfig.from_pretrained, (conversation_model / "source", tmp_path / "hf"))
    assert before.to_dict() == after.to_dict() and after.eos_token_id == [2, 3]


def test_in_the_extended_vocabulary_they_name_the_same_tokens(conversation_model, tmp_path):
    export_hf(open_weights(conversation_model / "ours"), tmp_path / "hf", vocabulary="extended")
    settings = GenerationConfig.from_pretrained(tmp_path / "hf")
    assert settings.eos_token_id == [EOS, EOT, 258, 259] and settings.pad_token_id == 259
    assert settings.temperature == 0.7
    refuses(tmp_path / "hf", tmp_path / "again", "was exported with --vocabulary extended")


def test_an_export_can_be_imported_again(conversation_model, tmp_path):
    """`AutoTokenizer` beside a Qwen2 adds a token of its own, which the table has no row for."""
    export_hf(open_weights(conversation_model / "ours"), tmp_path / "hf")
    assert agrees(tmp_path / "hf", tmp_path / "again")
    assert load_tokenizer(tmp_path / "again" / "tokenizer").size == 256


def test_a_run_from_scratch_says_what_length_it_was_trained_with(conversation_model, tmp_path):
    save_run(conversation_model / "ours", tmp_path / "run")
    export_hf(open_weights(tmp_path / "run"), tmp_path / "hf")
    seq_len = json.loads((tmp_path / "run" / "config.json").read_text())["data"]["seq_len"]
    assert AutoConfig.from_pretrained(tmp_path / "hf").max_position_embeddings == seq_len


def test_loading_a_folder_straight_is_converting_it(source, tmp_path):
    import_qwen2(source, tmp_path / "ours")
    mesh = jax.sharding.get_mesh()
    straight, converted = (open_weights(path).load_params(mesh) for path in (source, tmp_path / "ours"))
    for a, b in zip(jax.tree.leaves(straight), jax.tree.leaves(converted), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))
