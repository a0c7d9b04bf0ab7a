"""A checkpoint that is not what was saved is one sentence, from every reader, that names the newest whole one."""

import shutil

import pytest
from helpers import random_qwen2
from helpers.conversions import restore_run, save_run

import ualm_jax
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.convert_weights.qwen2 import import_qwen2
from ualm_jax.errors import UserError
from ualm_jax.tokens.tokenizer import save_byte_tokenizer
from ualm_jax.weights.opener import open_weights


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A run with checkpoints of the steps 4, 8 and 12."""
    folder = tmp_path_factory.mktemp("damaged")
    random_qwen2.save_tiny(folder / "source", text_size=256)
    save_byte_tokenizer(folder / "tokenizer")
    save_directory(init_random(tiny_config(), 0), tiny_config(), folder / "codec")
    import_qwen2(folder / "source", folder / "ours", codec=folder / "codec", tokenizer=folder / "tokenizer")
    save_run(folder / "ours", folder / "run", steps=(4, 8, 12))
    return folder / "run"


@pytest.fixture
def run(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "run")


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(file, share):
    content = bytearray(file.read_bytes())
    start = int(share * (len(content) - 16))
    content[start : start + 16] = bytes(byte ^ 0xFF for byte in content[start : start + 16])
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:1000])


DAMAGES = {
    "flipped at 10 %": lambda run: flip(largest(run / "checkpoints/12/state"), 0.1),
    "flipped at 90 %": lambda run: flip(largest(run / "checkpoints/12/state"), 0.9),
    "cut": lambda run: cut(largest(run / "checkpoints/12/state")),
    "no manifest": lambda run: (run / "checkpoints/12/state/manifest.ocdbt").unlink(),
    "no state": lambda run: shutil.rmtree(run / "checkpoints/12/state"),
    "place in the data is no JSON": lambda run: (run / "checkpoints/12/data/metadata").write_text("{"),
    "identity is no JSON": lambda run: (run / "checkpoints/12/identity/metadata").write_text("?"),
    "no checksums": lambda run: shutil.rmtree(run / "checkpoints/12/checksums"),
    "checksums are damaged": lambda run: (run / "checkpoints/12/checksums/SHA256SUMS").write_bytes(b"\xff\x00"),
    "metadata is no JSON": lambda run: (run / "checkpoints/12/_CHECKPOINT_METADATA").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_before_use_and_the_step_before_is_named(damage, run):
    model = open_weights(run).architecture
    DAMAGES[damage](run)
    for read in (lambda: open_weights(run), lambda: restore_run(run, model)):
        with pytest.raises(UserError, match="checkpoints/12 is damaged, .*; the newest whole one is 8") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert open_weights(run, step=8).step == 8
    shutil.rmtree(run / "checkpoints/12")  # as the sentence says
    assert int(restore_run(run, model).step) == 0 and open_weights(run).step == 8


def test_a_stray_folder_is_no_checkpoint(run):
    model = open_weights(run).architecture
    (run / "checkpoints/300").mkdir()
    for read in (lambda: open_weights(run), lambda: restore_run(run, model)):
        with pytest.raises(UserError, match="300 is damaged, it has no _CHECKPOINT_METADATA.*newest whole one is 12"):
            read()


def test_nothing_whole_is_said_so(run):
    for step in (4, 8, 12):
        flip(largest(run / f"checkpoints/{step}/state"), 0.5)
    with pytest.raises(UserError, match="no other checkpoint here is whole"):
        ualm_jax.load(run)


@pytest.mark.parametrize("part", ["codec/model.safetensors", "codec/config.json", "tokenizer/tokenizer.json"])
def test_what_a_run_was_trained_with_is_part_of_its_checkpoints(part, run):
    flip(run / part, 0.5)
    with pytest.raises(UserError, match=f"12 is damaged, ../../{part} has another SHA-256"):
        ualm_jax.load(run)


def test_the_architecture_is_that_of_the_checkpoint(run):
    """config.json says what the last start asked for, which may have been refused."""
    content = (run / "config.json").read_text()
    assert '"rope_theta": 500000.0' in content
    (run / "config.json").write_text(content.replace('"rope_theta": 500000.0', '"rope_theta": 100.0'))
    assert open_weights(run).architecture.decoder.rope_theta == 5e5


def test_a_step_that_is_not_there(run):
    with pytest.raises(UserError, match="has no checkpoint of step 5, only of 4, 8, 12"):
        ualm_jax.load(run, step=5)


@pytest.mark.parametrize("part", ["codec/model.safetensors", "tokenizer/tokenizer.json", "params/_METADATA"])
def test_a_converted_checkpoint_is_checked_too(part, pristine, tmp_path):
    copy = shutil.copytree(pristine.parent / "ours", tmp_path / "copy")
    flip(copy / part, 0.5)
    with pytest.raises(UserError, match=f"copy: {part} has another SHA-256"):
        ualm_jax.load(copy)


def test_chunks_of_a_converted_checkpoint_have_checksums(pristine, tmp_path):
    copy = shutil.copytree(pristine.parent / "ours", tmp_path / "copy")
    flip(largest(copy / "params/decoder.layers.mlp.up"), 0.5)
    with pytest.raises(UserError, match="params: its arrays cannot be read .*decoder.layers.mlp.up.*igest"):
        ualm_jax.load(copy)


def test_a_damaged_checkpoint_of_version_0_1_is_a_sentence_too(run):
    """It has no checksums: what Orbax finds is told."""
    model = open_weights(run).architecture
    for step in (8, 12):
        folder = run / "checkpoints" / str(step)
        shutil.rmtree(folder / "checksums")
        metadata = (folder / "_CHECKPOINT_METADATA").read_text().replace("checksums", "others")
        (folder / "_CHECKPOINT_METADATA").write_text(metadata)
    assert open_weights(run).step == 12
    cut(largest(run / "checkpoints/12/state"))
    with pytest.raises(UserError, match="12 is damaged, .*; the newest whole one is 8"):
        restore_run(run, model)
    with pytest.raises(UserError, match="12/state: its arrays cannot be read"):
        ualm_jax.load(run)
