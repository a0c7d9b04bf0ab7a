"""A start that is refused says why in one sentence and changes no file; what may change between starts is named."""

import dataclasses
import json
import shutil

import pytest
from helpers.fake_sounds import FakeSource, prepare_fake
from helpers.runs import command

from ualm_jax.cli.main import run
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.mapping import from_mapping, to_mapping
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.tokenizer import save_byte_tokenizer
from ualm_jax.train.config import RunConfig
from ualm_jax.train.stages.identity import identity_of
from ualm_jax.train.workdir import claim
from ualm_jax.weights.opener import open_weights

pytestmark = pytest.mark.usefixtures("as_many_devices_as_the_mesh_has")


@pytest.fixture(scope="module")
def other_codec(tmp_path_factory):
    """The same sounds through a codec with other weights."""
    parts = tmp_path_factory.mktemp("other_parts")
    save_byte_tokenizer(parts / "tokenizer")
    codec = dataclasses.replace(tiny_config(), codebook_size=32, target_bandwidths=(2.0,))
    save_directory(init_random(codec, 1), codec, parts / "codec")
    out = tmp_path_factory.mktemp("other") / "fake"
    prepare_fake(FakeSource(60), parts, out)
    return out


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    assert run(command(dataset, workdir, "--config.train.steps=4")) == 0
    return workdir


def contents(folder) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def refusal(capsys, *words) -> str:
    capsys.readouterr()
    assert run([str(word) for word in words]) == 1
    message = capsys.readouterr().err.strip()
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            ["--config.model.decoder.rope_theta=100.0"],
            "config.model.decoder.rope_theta = 1000000.0, but this run has 100",
        ),
        (["--config.model.decoder.mlp_dim=128"], "config.model.decoder.mlp_dim = 64, but this run has 128"),
        (["--config.train.seed=1"], "config.train.seed = 0, but this run has 1"),
        (["--config.optimizer.beta2=0.9"], "config.optimizer.beta2 = 0.95, but this run has 0.9"),
        (["--config.train.steps=3"], "The run is at step 4 already, train.steps is 3"),
        (["--config.eval.directory=/nope"], "/nope: no dataset here"),
        (["--config.train.init_from=/nope"], "config.train.init_from = /nope: there is no such folder"),
        (["--config.model.feature_width=8"], "model.feature_width = None"),
        (
            ["--config.execution.decode_attention=pallas", "--config.eval.prompts=('a click',)"],
            "execution.decode_attention = 'pallas' can not be used: its kernels are for NVIDIA GPUs",
        ),
    ],
)
def test_a_run_that_is_refused_is_as_it_was(arguments, sentence, dataset, trained, capsys):
    before = contents(trained)
    assert sentence in refusal(capsys, *command(dataset, trained, "--config.train.steps=8", *arguments))
    assert contents(trained) == before


def test_data_of_another_codec_is_refused(dataset, other_codec, trained, tmp_path, capsys):
    before = contents(trained)
    message = refusal(capsys, *command(other_codec, trained, "--config.train.steps=8"))
    assert "are different codecs" in message and contents(trained) == before
    fresh = command(other_codec, tmp_path / "run", "--config.train.steps=2")
    assert "different codecs" in refusal(capsys, *fresh, f"--config.train.init_from={trained}")
    assert "different codecs" in refusal(capsys, *fresh, f"--config.eval.directory={dataset}")
    assert not (tmp_path / "run").exists()


def test_a_new_folder_is_not_made_for_a_run_that_is_refused(dataset, tmp_path, capsys):
    workdir = tmp_path / "runs" / "deep" / "run"
    refusal(capsys, *command(dataset, workdir, "--config.data.seq_len=16"))
    assert not (tmp_path / "runs").exists()


def test_a_refusal_leaves_what_another_run_made_beside_it(tmp_path):
    first, second = tmp_path / "runs" / "first", tmp_path / "runs" / "second"
    with pytest.raises(ValueError, match="why it was refused"), claim(first):
        second.mkdir()
        raise ValueError("why it was refused")
    assert [folder.name for folder in second.parent.iterdir()] == ["second"]


def test_parts_of_a_run_that_saved_nothing_are_replaced(dataset, other_codec, trained, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    shutil.copytree(other_codec / "codec", workdir / "codec")
    assert run(command(dataset, workdir, "--config.train.steps=2")) == 0
    assert contents(workdir / "codec") == contents(dataset / "codec")


def test_a_run_has_one_writer(dataset, trained, capsys):
    before = contents(trained)
    with claim(trained):
        assert "is writing here" in refusal(capsys, *command(dataset, trained, "--config.train.steps=8"))
    assert contents(trained) == before


def test_a_finished_run_says_so(dataset, trained, capsys, caplog):
    before = contents(trained)
    with caplog.at_level("INFO"):
        assert run(command(dataset, trained, "--config.train.steps=4")) == 0
    assert "is at step 4 already, which is train.steps: nothing to do" in caplog.text
    assert contents(trained) == before


def test_what_a_run_began_with_may_be_gone_and_is_not_forgotten(dataset, trained, tmp_path, caplog):
    workdir = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["train"]["init_from"] = "/gone"
    (workdir / "config.json").write_text(json.dumps(config))
    assert run(command(dataset, workdir, "--config.train.steps=4", "--config.train.init_from=/gone")) == 0
    assert run(command(dataset, workdir, "--config.train.steps=4")) == 0
    with caplog.at_level("WARNING"):
        assert run(command(dataset, workdir, "--config.train.steps=4", f"--config.train.init_from={trained}")) == 0
    assert "is not used: the run goes on from its checkpoint, and began with /gone" in caplog.text
    assert json.loads((workdir / "config.json").read_text()) == config


def test_what_is_opened_computes_as_suits_the_device_that_opens_it(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["execution"].update(attention="pallas", decode_attention="pallas")
    (workdir / "config.json").write_text(json.dumps(config))
    execution = open_weights(workdir).load_model(make_mesh(MeshConfig())).execution
    assert (execution.attention, execution.decode_attention) == ("auto", "xla")


def test_what_is_not_named_as_free_is_identity(dataset):
    from helpers.run_config import get_config

    values = get_config().to_dict()
    values["data"]["directory"] = str(dataset)
    config = from_mapping(RunConfig, values)
    identity = identity_of(config)
    assert identity["model"] == to_mapping(config)["model"]
    assert identity["data"].keys() == to_mapping(config)["data"].keys() - {
        "directory",
        "sources",
        "num_workers",
        "prefetch",
    }
    assert identity.keys() == {"model", "data", "optimizer", "train", "lora", "preference", "grpo"}
    assert identity["train"].keys() == {"seed", "objective", "trainable"} and "reference" not in identity["preference"]
