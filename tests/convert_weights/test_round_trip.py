"""What comes in goes out again byte by byte, and what was not there is made as said."""

import dataclasses
import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch
from helpers import golden_model, random_qwen2
from helpers.conversions import save_omni, save_run

from ualm_jax.convert_weights.codec_and_encoder import export_xcodec, import_encoder, import_xcodec
from ualm_jax.convert_weights.ours import export_ours
from ualm_jax.convert_weights.qwen2 import export_hf, import_qwen2
from ualm_jax.convert_weights.ualm_reference import STATES, export_reference, find_states, import_reference
from ualm_jax.weights.audio_tower import read_encoder_config
from ualm_jax.weights.hf_folder import open_directory
from ualm_jax.weights.hf_qwen2 import Extension
from ualm_jax.weights.opener import open_weights
from ualm_jax.weights.tensor_files import TensorFiles

SMALL = Extension(codebook_size=12, num_codebooks=4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_qwen2_comes_back(tied, dtype, tmp_path, assert_same_tensors):
    source = random_qwen2.save_tiny(tmp_path / "source", tied=tied, dtype=dtype)
    import_qwen2(source, tmp_path / "ours", extension=SMALL)
    export_hf(open_weights(tmp_path / "ours"), tmp_path / "back")
    assert_same_tensors(open_directory(source), open_directory(tmp_path / "back"))
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["tie_word_embeddings"] == tied and config["dtype"] == dtype


def test_a_path_may_lead_up_and_down_again(base, tmp_path, monkeypatch, assert_same_tensors):
    """Of what is read and of what is written, of converted checkpoints and of runs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    up = pathlib.Path("..")
    save_run(base, up / "run")
    shutil.copytree(base, up / "copied")
    for name in ("run", "copied"):
        export_ours(open_weights(up / name), up / "ours" / ".." / f"{name}.ours")
        export_hf(open_weights(up / f"{name}.ours"), up / f"{name}.hf")
    assert_same_tensors(open_directory(tmp_path / "run.hf"), open_directory(tmp_path / "copied.hf"))


def test_shards_and_pickles_are_read_as_one_file_is(tmp_path, assert_same_tensors):
    whole = random_qwen2.save_tiny(tmp_path / "whole")
    sharded = random_qwen2.save_tiny(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 3
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((whole / "config.json").read_text())
    tensors = open_directory(whole)
    torch.save({n: torch.from_numpy(tensors.read(n)) for n in tensors.tensors}, pickled / "pytorch_model.bin")
    for source in (whole, sharded, pickled):
        import_qwen2(source, tmp_path / f"{source.name}.ours", extension=SMALL)
        export_hf(open_weights(tmp_path / f"{source.name}.ours"), tmp_path / f"{source.name}.back", shard_bytes=20000)
        assert len(list((tmp_path / f"{source.name}.back").glob("*.safetensors"))) > 3
        assert_same_tensors(open_directory(whole), open_directory(tmp_path / f"{source.name}.back"))


def test_text_rows_are_copied_and_the_others_drawn(tmp_path):
    source = random_qwen2.save_tiny(tmp_path / "source", dtype="bfloat16")
    import_qwen2(source, tmp_path / "one", extension=SMALL)
    import_qwen2(source, tmp_path / "same", extension=SMALL)
    import_qwen2(source, tmp_path / "other", extension=dataclasses.replace(SMALL, seed=1, std=0.5))
    hf, store = open_directory(source), open_weights(tmp_path / "one").arrays()
    embed, text, audio = (store.read(name) for name in ("embed", "text_head", "audio_head"))
    head = np.concatenate([text, audio.reshape(len(audio), -1)], axis=1).T
    for table, name in ((embed, "model.embed_tokens.weight"), (head, "lm_head.weight")):
        assert table.dtype == ml_dtypes.bfloat16 and table.shape == (256 + 96 + 4 * 13, 32)
        assert np.array_equal(table[256:352], hf.read(name))
        assert not table[0].any()  # as the reference begins
        drawn = np.concatenate([table[1:256], table[352:]]).astype(np.float32)
        assert abs(drawn.std() - 0.02) < 0.001 and abs(drawn.mean()) < 0.001
    assert np.array_equal(embed, open_weights(tmp_path / "same").arrays().read("embed"))
    other = open_weights(tmp_path / "other").arrays().read("embed").astype(np.float32)
    assert abs(other[1:256].std() - 0.5) < 0.02 and np.array_equal(other[256:352], embed[256:352].astype(np.float32))
    assert abs(store.read("stream_embed").astype(np.float32).std() - 0.02) < 0.005


def test_our_arrays_are_those_of_the_second_implementation(golden_dir, trained):
    """`golden_model` maps the same checkpoint by hand."""

    def flatten(tree, prefix=""):
        for name, value in tree.items():
            yield from flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]

    store = open_weights(trained).arrays()
    for path, value in flatten(golden_model.to_ours(golden_model.reference_tensors(golden_dir))):
        assert np.array_equal(store.read(path), value), path


def test_the_references_checkpoint_comes_back(golden_dir, trained, tmp_path, assert_same_tensors):
    export_reference(open_weights(trained), tmp_path / "back")
    original, back = (find_states(path) for path in (golden_dir / "checkpoints", tmp_path / "back"))
    assert_same_tensors(TensorFiles([original]), TensorFiles([back]))
    assert (tmp_path / "back" / "latest").read_text() == back.parent.name


def test_the_export_loads_strictly_into_the_references_names(golden_dir, trained, tmp_path):
    """A module tree with the names and shapes that the reference's own checkpoint has."""
    state = torch.load(find_states(golden_dir / "checkpoints"), weights_only=True)["module"]
    root = torch.nn.Module()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, torch.nn.Parameter(torch.zeros_like(tensor), requires_grad=False))
    export_reference(open_weights(trained), tmp_path / "back")
    exported = torch.load(tmp_path / "back" / "global_step0" / STATES, weights_only=True)["module"]
    root.load_state_dict(exported, strict=True)


def test_a_codec_that_training_rounded_is_kept_whole(golden_dir, tmp_path, assert_same_tensors):
    """DeepSpeed in bfloat16 rounds the frozen codec too: codes need the one it was rounded from."""
    state = torch.load(find_states(golden_dir / "checkpoints"), weights_only=True)["module"]
    rounded = tmp_path / "source" / STATES
    rounded.parent.mkdir()
    torch.save({"module": {name: tensor.bfloat16() for name, tensor in state.items()}}, rounded)
    options = dict(base=golden_dir / "qwen2", codec=golden_dir / "xcodec")
    import_reference(rounded.parent, tmp_path / "ours", **options)
    assert_same_tensors(open_directory(golden_dir / "xcodec"), open_directory(tmp_path / "ours" / "codec"))
    assert open_weights(tmp_path / "ours").execution.param_dtype == "bfloat16"
    export_reference(open_weights(tmp_path / "ours"), tmp_path / "back")
    assert_same_tensors(TensorFiles([rounded]), TensorFiles([find_states(tmp_path / "back")]))


@pytest.mark.parametrize("prefix", ["model.audio_tower.", "model."])
def test_the_encoder_inside_a_reference_checkpoint_comes_back(prefix, golden_dir, tmp_path, assert_same_tensors):
    """The frozen tower is trained beside; it lies in the file under the handler's name, in either of two depths."""
    tower = save_omni(tmp_path / "omni")
    content = torch.load(find_states(golden_dir / "checkpoints"), weights_only=True)
    begin = f"multimodal_io_dict.continuous_audio.{prefix}"
    content["module"] |= {begin + name: torch.from_numpy(value) for name, value in tower.items()}
    source = tmp_path / "source" / STATES
    source.parent.mkdir()
    torch.save(content, source)
    (tmp_path / "omni" / "settings.json").write_text('{"normalize": false}')
    options = dict(base=golden_dir / "qwen2", codec=golden_dir / "xcodec", encoder=tmp_path / "omni")
    import_reference(source.parent, tmp_path / "ours", **options)
    ours = open_directory(tmp_path / "ours" / "encoder")
    assert {name: ours.read(name).tobytes() for name in ours.tensors} == {
        name: value.tobytes() for name, value in tower.items()
    }
    assert not read_encoder_config(tmp_path / "ours" / "encoder" / "config.json").normalize
    export_reference(open_weights(tmp_path / "ours"), tmp_path / "back")
    assert_same_tensors(TensorFiles([source]), TensorFiles([find_states(tmp_path / "back")]))


def test_an_xcodec_comes_back(golden_dir, tmp_path, assert_same_tensors):
    import_xcodec(golden_dir / "xcodec", tmp_path / "ours")
    export_xcodec(tmp_path / "ours", tmp_path / "back")
    assert_same_tensors(open_directory(golden_dir / "xcodec"), open_directory(tmp_path / "back"))


def test_a_tower_is_taken_out_of_the_whole_model(tmp_path):
    """Only the shards that hold it are opened: the others need not even be there."""
    tower = save_omni(tmp_path / "omni")
    (tmp_path / "omni" / "model-00002-of-00002.safetensors").unlink()
    import_encoder("omni-audio", tmp_path / "omni", tmp_path / "ours")
    ours = open_directory(tmp_path / "ours" / "encoder")
    assert set(ours.tensors) == set(tower)
    for name, value in tower.items():
        assert np.array_equal(ours.read(name), value), name


def test_a_run_is_exported_as_a_converted_checkpoint_is(base, tmp_path, assert_same_tensors):
    """The arrays of a training checkpoint lie in another layout; what comes out is the same."""
    save_run(base, tmp_path / "run")
    export_hf(open_weights(base), tmp_path / "converted.hf", vocabulary="extended")
    export_hf(open_weights(tmp_path / "run"), tmp_path / "run.hf", vocabulary="extended")
    assert open_weights(tmp_path / "run").step == 7
    assert_same_tensors(open_directory(tmp_path / "converted.hf"), open_directory(tmp_path / "run.hf"))
