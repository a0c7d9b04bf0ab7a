"""Every bad input is one sentence that names file and tensor, and leaves nothing that looks complete."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import random_qwen2
from safetensors.numpy import load_file, save_file

from ualm_jax.cli.main import run
from ualm_jax.convert_weights.codec_and_encoder import import_encoder, import_xcodec
from ualm_jax.convert_weights.qwen2 import import_qwen2
from ualm_jax.convert_weights.ualm_reference import STATES, find_states, import_reference
from ualm_jax.errors import UserError
from ualm_jax.weights.hf_qwen2 import Extension

SMALL = Extension(codebook_size=12, num_codebooks=4)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return random_qwen2.save_tiny(tmp_path_factory.mktemp("qwen2") / "source", max_shard_size="20KB")


@pytest.fixture
def source(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "source")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path):
    yield
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def refuses(source, out, match, **options):
    with pytest.raises(UserError, match=match) as caught:
        import_qwen2(source, out, extension=SMALL, **options)
    assert "\n" not in str(caught.value)


def shard_of(source, tensor):
    index = json.loads((source / "model.safetensors.index.json").read_text())
    return source / index["weight_map"][tensor]


def change(source, tensor, make):
    """Rewrites one tensor of a shard; None takes it out."""
    file = shard_of(source, tensor)
    tensors = load_file(file)
    value = make(tensors.pop(tensor))
    save_file(tensors if value is None else tensors | {tensor: value}, file, metadata={"format": "pt"})
    return file.name


def test_truncated_safetensors(source, tmp_path):
    file = shard_of(source, "model.layers.1.mlp.up_proj.weight")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - 100])
    refuses(source, tmp_path / "out", rf"{file.name}: is cut short, tensor model\.\S+ is not whole")
    file.write_bytes(content[:5])
    refuses(source, tmp_path / "out", f"{file.name}: is no safetensors file")


def test_missing_shard(source, tmp_path):
    file = shard_of(source, "model.layers.0.mlp.up_proj.weight")
    file.unlink()
    refuses(source, tmp_path / "out", rf"{file.name}: this shard is missing, and tensor model\.\S+ is in it")


def test_missing_tensor(source, tmp_path):
    change(source, "model.norm.weight", lambda value: None)
    refuses(source, tmp_path / "out", "tensor model.norm.weight is missing")


def test_tensor_of_another_architecture(source, tmp_path):
    file = shard_of(source, "model.norm.weight")
    save_file(load_file(file) | {"model.layers.0.self_attn.q_norm.weight": np.ones(8, np.float32)}, file)
    refuses(source, tmp_path / "out", f"{file.name}: tensor model.layers.0.self_attn.q_norm.weight has no place")


def test_wrong_shape(source, tmp_path):
    name = "model.layers.1.mlp.down_proj.weight"
    file = change(source, name, lambda value: value[:-1])
    refuses(source, tmp_path / "out", rf"{file}: tensor {name} has shape \(31, 48\), expected \(32, 48\)")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_that_are_not_finite(bad, dtype, source, tmp_path):
    import ml_dtypes

    kinds = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
    name = "model.norm.weight"

    def spoil(value):
        value = value.astype(kinds[dtype])
        value[3] = bad
        return value

    file = change(source, name, spoil)
    refuses(source, tmp_path / "out", f"{file}: tensor {name} holds NaN or infinity")


def test_weights_that_are_no_floats(source, tmp_path):
    file = change(source, "model.norm.weight", lambda value: value.astype(np.int64))
    refuses(source, tmp_path / "out", f"{file}: tensor model.norm.weight has dtype int64")


@pytest.mark.parametrize(
    "field, value, match",
    [
        ("model_type", "llama", "model_type must be 'qwen2', found 'llama'"),
        ("use_sliding_window", True, "use_sliding_window must be False"),
        ("rope_parameters", {"rope_type": "yarn"}, r"rope_parameters.rope_type must be 'default', found 'yarn'"),
        ("num_attention_heads", 5, r"model.decoder.num_heads \(5\) must be a multiple of"),
    ],
)
def test_wrong_architecture(field, value, match, source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {field: value}))
    refuses(source, tmp_path / "out", f"config.json: {match}")


def test_vocabulary_that_is_not_the_tokenizers(source, tmp_path, golden_dir):
    refuses(
        source,
        tmp_path / "out",
        "the tokenizer has ids up to 351, but the model's text table has 96 rows",
        tokenizer=golden_dir / "qwen2",
    )


def test_no_weights(source, tmp_path):
    (source / "model.safetensors.index.json").unlink()
    refuses(source, tmp_path / "out", "no weights here, expected model.safetensors or pytorch_model.bin")


def test_an_existing_folder_is_not_written_over(source, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.txt").write_text("years of work")
    refuses(source, tmp_path / "there", "there: exists already and is not empty")


def test_a_pickle_that_wants_to_run_code(tmp_path, golden_dir):
    class Evil:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "owned"),)

    file = tmp_path / "source" / STATES
    file.parent.mkdir()
    torch.save({"module": {"weight": torch.ones(1)}, "optimizer": Evil()}, file)
    with pytest.raises(UserError, match=rf"{STATES}: holds more than tensors and was not loaded.*mkdir") as caught:
        import_reference(file, tmp_path / "out", base=golden_dir / "qwen2")
    assert "\n" not in str(caught.value) and not (tmp_path / "owned").exists()


@pytest.mark.parametrize("junk", [b"", b"junk"])
def test_a_pickle_cut_short(junk, tmp_path, golden_dir):
    file = tmp_path / "source" / STATES
    file.parent.mkdir()
    file.write_bytes(junk or find_states(golden_dir / "checkpoints").read_bytes()[:5000])
    with pytest.raises(UserError, match=f"{STATES}: torch cannot read it"):
        import_reference(file, tmp_path / "out", base=golden_dir / "qwen2")


def test_a_reference_checkpoint_of_another_base(tmp_path, golden_dir, source):
    with pytest.raises(UserError, match="904 token rows are not 256 special, 97 text"):
        base = tmp_path / "base"
        base.mkdir()
        config = json.loads((golden_dir / "qwen2" / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"vocab_size": 97}))
        import_reference(golden_dir / "checkpoints", tmp_path / "out", base=base)


def test_a_reference_checkpoint_needs_its_codecs_configuration(tmp_path, golden_dir):
    with pytest.raises(UserError, match="holds an X-codec; give --codec DIR"):
        import_reference(golden_dir / "checkpoints", tmp_path / "out", base=golden_dir / "qwen2")


def test_a_rounded_codec_that_is_not_the_given_ones_rounding(tmp_path, golden_dir):
    state = torch.load(find_states(golden_dir / "checkpoints"), weights_only=True)["module"]
    file = tmp_path / "source" / STATES
    file.parent.mkdir()
    state = {name: value.bfloat16() for name, value in state.items()}
    name = "multimodal_io_dict.discrete_audio.codec_model.fc2.bias"
    state[name] = state[name] + 1
    torch.save({"module": state}, file)
    with pytest.raises(UserError, match=f"tensor {name} in bfloat16 is not the rounding of fc2.bias"):
        import_reference(file, tmp_path / "out", base=golden_dir / "qwen2", codec=golden_dir / "xcodec")


def test_a_damaged_codec(tmp_path, golden_dir):
    source = shutil.copytree(golden_dir / "xcodec", tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["fc.weight"][0, 0] = np.nan
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(UserError, match="model.safetensors: tensor fc.weight holds NaN"):
        import_xcodec(source, tmp_path / "out")


def test_no_audio_tower(tmp_path, golden_dir):
    with pytest.raises(UserError, match="config.json: expected the configuration of qwen2_5_omni_audio_encoder or"):
        import_encoder("omni-audio", golden_dir / "qwen2", tmp_path / "out")


def test_a_conversion_that_is_stopped_leaves_nothing(source, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_qwen2(source, tmp_path / "out", extension=SMALL, progress=stop)


def test_a_folder_in_the_way_of_the_partial_one_is_not_emptied(source, tmp_path):
    (tmp_path / "here.partial").mkdir()
    (tmp_path / "here.partial" / "thesis.txt").write_text("years of work")
    refuses(source, tmp_path / "here", "here.partial is in the way, and no conversion made it")
    assert (tmp_path / "here.partial" / "thesis.txt").read_text() == "years of work"


def test_what_a_killed_conversion_left_is_replaced(source, tmp_path):
    left = tmp_path / "here.partial"
    (left / "params").mkdir(parents=True)
    (left / "lock").write_text("process 1 on another host")
    (left / "params" / "half").write_text("half")
    import_qwen2(source, tmp_path / "here", extension=SMALL)
    assert not left.exists() and not (tmp_path / "here" / "params" / "half").exists()
    assert not (tmp_path / "here" / "lock").exists()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--codebook-size", "0"], "--codebook-size: expected a whole number of at least 1, got 0"),
        (["--num-codebooks", "-1"], "--num-codebooks: expected a whole number of at least 1, got -1"),
        (["--seed", "-1"], "--seed: expected a whole number of at least 0, got -1"),
        (["--std", "nan"], "--std: expected a number of at least 0, got 'nan'"),
        (["--out", "gs://bucket/x"], "--out: expected a path on this machine, got the URL gs://bucket/x"),
        (["--out", "s3://bucket/x"], "--out: expected a path on this machine, got the URL s3://bucket/x"),
        (["--out", "/proc/x"], "--out: /proc can not be written"),
        (["--out", "/dev/null/x"], "--out: expected a folder, /dev/null is a file"),
        (["--codec", "/no/such"], "--codec: there is no /no/such"),
    ],
)
def test_what_cannot_be_is_said_before_work_begins(words, sentence, source, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(["convert", "qwen2", str(source), "--out", str(tmp_path / "out"), *words])
    message = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and sentence in message and "\n" not in message


def test_numbers_are_checked_without_the_command_line_too():
    for wrong in ({"codebook_size": 0}, {"num_codebooks": -1}, {"seed": -1}, {"std": float("nan")}):
        with pytest.raises(UserError, match="--.* must be "):
            Extension(**wrong)
